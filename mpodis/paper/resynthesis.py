"""CNOTs of disentangling circuits, by the transpiler and resynthesised by our own sweeps.

The MPO layer of every network is disentangled by brickwalls, on both sides and on the left alone.
Their CNOTs are counted as they are (Qiskit's level 3, which finds nothing in a brickwall of SO(4)
gates), as Qiskit approximates them, and after `resynthesise`: with every circuit held at its
unitary, and with the layer held at its overlap only. Q_R followed by Q_L, as between two layers
with nothing classical in between, is merged and compiled as one circuit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes

from mpodis.circuit.ansatz import Ansatz
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.jobs.records import spread
from mpodis.measures import von_neumann_bound
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.networks import network
from mpodis.quantum import compile_jointly, gate_cost, qiskit_approximation
from mpodis.resynthesis import resynthesise
from mpodis.tables import Table

__all__ = ["EXPERIMENT", "Resynthesised"]

SIDES = ("both", "left")
ROWS = {
    "qiskit": "Qiskit, level 3",
    "approximated": "Qiskit, level 3, approximated",
    "unitary": "ours, every unitary held",
    "layer": "ours, the layer held",
}
JOINT = {
    "apart": "apart, Qiskit level 3",
    "merged": "merged, Qiskit level 3",
    "resynthesised apart": "apart, ours",
    "resynthesised": "merged, ours",
}


@dataclass(frozen=True)
class Resynthesised(Options):
    """Layers of the circuits, what the overlap may lose, and the effort of `resynthesise`.

    Attributes
    ----------
    depth : int
    tol : float
        Of the layer's overlap, and of that with each circuit's unitary.
    orders, rounds, trials : int
    max_sweeps : int
        Of `disentangle`.
    """

    depth: int = 8
    tol: float = 1e-3
    orders: int = 1
    rounds: int = 4
    trials: int = 6
    max_sweeps: int = 200


def pieces(options: Resynthesised) -> list[Piece]:
    effort = {name: getattr(options, name) for name in ("tol", "orders", "rounds", "trials")}
    same = {"data": options.data, "networks": options.networks, "depth": options.depth}
    same |= {"max_sweeps": options.max_sweeps, "effort": effort}
    return [
        Piece(f"{sides}-seed{seed}", _counted, same | {"seed": seed, "sides": sides})
        for sides in SIDES
        for seed in options.range
    ]


def _counted(
    *,
    data: str,
    networks: str,
    seed: int,
    depth: int,
    sides: str,
    max_sweeps: int,
    effort: dict,
) -> dict:
    mpo = network(data, networks, seed).mpo.to_mpo()
    right = None if sides == "both" else Ansatz(mpo.L, (), "SO")
    found = disentangle(
        mpo, left=depth, right=right, init="grown", max_sweeps=max_sweeps, seed=seed
    )
    given, tol = found.factorization, effort["tol"]
    circuits = [c for c in (given.left, given.right) if c.gates]
    near = [qiskit_approximation(circuit, tol=tol, seed=seed) for circuit in circuits]
    options = {name: effort[name] for name in ("tol", "rounds", "trials")}
    options |= {"n_searches": effort["orders"], "seed": seed}
    alone = [resynthesise(circuit, **options) for circuit in circuits]
    layer = resynthesise(given, mpo, **options)
    held = [one.circuit for one in alone]
    replaced = Factorization(held[0], given.core, held[1] if held[1:] else given.right, given.shape)
    row = {
        "seed": seed,
        "sides": sides,
        "bound": von_neumann_bound(mpo, given.core),
        "overlap": {
            "qiskit": layer.overlap_before,
            "unitary": replaced.overlap(mpo),
            "layer": layer.overlap,
        },
        "cnots": {
            "qiskit": _level3(circuits, seed),
            "approximated": sum(one.cost.two_qubit for one in near),
            "unitary": _level3(held, seed),
            "layer": _level3([layer.factorization.left, layer.factorization.right], seed),
        },
        "unitaries": [one.overlap for one in alone],
        "seconds": {"layer": layer.seconds, "unitary": sum(one.seconds for one in alone)},
        "front": layer.to_dict()["front"],
    }
    if sides == "both":
        joint = compile_jointly(
            given.right,
            given.left,
            tol=tol,
            n_searches=effort["orders"],
            rounds=effort["rounds"],
            candidates=effort["trials"],
            seed=seed,
        )
        row["joint"] = {name: cost.two_qubit for name, cost in joint.costs.items()}
        row["joint_overlap"] = joint.overlap
    return row


def _level3(circuits: Sequence, seed: int) -> int:
    return sum(gate_cost(c, optimization_level=3, seed=seed).two_qubit for c in circuits if c.gates)


def _rows(record: dict, sides: str) -> list[dict]:
    return [row for row in record["pieces"].values() if row["sides"] == sides]


def tables(record: dict) -> list[Table]:
    rows = []
    for sides in SIDES:
        found = _rows(record, sides)
        for name, label in ROWS.items():
            overlaps = [row["overlap"].get(name) for row in found]
            rows.append(
                (
                    f"{sides}, {label}" if sides == "left" else f"{sides} sides, {label}",
                    spread([row["cnots"][name] for row in found], 0),
                    None if None in overlaps else spread(overlaps, 4),
                )
            )
    tol = record["options"]["tol"]
    joint = [
        (label, spread([row["joint"][name] for row in _rows(record, "both")], 0))
        for name, label in JOINT.items()
    ]
    return [
        Table(
            ("circuits", "CNOTs", "overlap of the layer"),
            rows,
            title="CNOTs by compilation, median (least to most)",
            notes=(
                f"tol {tol:g}: of the layer's overlap, with its core updated; or of that with "
                "each unitary, the layer's core left as it is",
                "approximated: the fewest CNOTs at which Qiskit's approximation_degree holds "
                "each unitary to tol",
            ),
        ),
        Table(
            ("Q_R followed by Q_L", "CNOTs"),
            joint,
            title="neighbouring circuits, median (least to most)",
            notes=(f"ours: the product's unitary held to {tol:g}, apart to half of it each",),
        ),
    ]


def _draw(record: dict, ax: Axes) -> Axes:
    """Overlap against CNOTs on the way, what Qiskit counts and what holds marked."""
    for k, row in enumerate(_rows(record, "both")):
        front = [(n, 1.0 - loss) for n, loss in row["front"]]
        least = row["overlap"]["qiskit"] - 5.0 * record["options"]["tol"]
        points = sorted(point for point in front if point[1] >= least)
        ax.plot(*zip(*points, strict=True), "-", lw=1, color=f"C{k}", label=f"seed {row['seed']}")
        for name, marker in (("qiskit", "s"), ("layer", "o")):
            ax.plot([row["cnots"][name]], [row["overlap"][name]], marker, color=f"C{k}", ms=6)
    ax.plot([], [], "ks", label="Qiskit, level 3")
    ax.plot([], [], "ko", label="ours, the layer held")
    ax.set(xlabel="CNOTs of both circuits", ylabel="overlap f")
    ax.legend(fontsize="x-small")
    return ax


def _draw_counts(record: dict, ax: Axes) -> Axes:
    labels, k = [], 0
    for sides in SIDES:
        for name, label in ROWS.items():
            values = [row["cnots"][name] for row in _rows(record, sides)]
            ax.plot(values, [k] * len(values), "o", color=f"C{k % 4}", alpha=0.7)
            labels.append(f"{sides}: {label}")
            k += 1
    for name, label in JOINT.items():
        values = [row["joint"][name] for row in _rows(record, "both")]
        ax.plot(values, [k] * len(values), "D", color="0.3", alpha=0.7)
        labels.append(f"Q_R Q_L: {label}")
        k += 1
    ax.set_yticks(range(k), labels, fontsize="small")
    ax.set(xlabel="CNOTs")
    ax.invert_yaxis()
    return ax


def finding(record: dict) -> str:
    options = record["options"]

    def counts(sides: str, name: str) -> str:
        return spread([row["cnots"][name] for row in _rows(record, sides)], 0)

    both = _rows(record, "both")
    lost = [row["overlap"]["qiskit"] - row["overlap"]["layer"] for row in both]
    joint = {name: spread([row["joint"][name] for row in both], 0) for name in JOINT}
    seconds = median(row["seconds"]["layer"] for row in both)
    return (
        f"CNOTs of both circuits of depth {options['depth']}, median (least to most) over "
        f"{len(both)} networks: {counts('both', 'qiskit')} by Qiskit's level 3, "
        f"{counts('both', 'approximated')} as Qiskit approximates them, "
        f"{counts('both', 'unitary')} resynthesised with every unitary held to "
        f"{options['tol']:g}, {counts('both', 'layer')} with only the layer's overlap held (which "
        f"falls by {max(lost):.2g} at most), in {seconds:.0f} s. The left circuit alone: "
        f"{counts('left', 'qiskit')}, {counts('left', 'approximated')}, "
        f"{counts('left', 'unitary')} and {counts('left', 'layer')}. Q_R followed by Q_L: "
        f"{joint['apart']} apart, {joint['merged']} merged by Qiskit, "
        f"{joint['resynthesised apart']} apart and {joint['resynthesised']} merged by ours."
    )


EXPERIMENT = Experiment(
    name="resynthesis",
    title="CNOTs after resynthesis, and of merged neighbours",
    options=Resynthesised,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "overlap",
            "Overlap of the layer against CNOTs on the way from Qiskit's count to the fewest "
            "that hold it, both sides, one line a network.",
            _draw,
        ),
        Panel("counts", "CNOTs by compilation, one point a network.", _draw_counts),
    ),
)

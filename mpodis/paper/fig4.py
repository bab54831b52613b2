"""Fig. 4 of arXiv 2509.06653v1: overlap, entropy and gates against the number of layers.

Two ways beside each other. "random" is the paper's: at each depth a new run from random gates,
the core fixed at the truncated MPO, plain sweeps. "ours" updates the core, and one run to the
deepest circuit gives every depth, since circuits grow from the outermost layer.

The paper finds, and does not explain, a dip in the overlap between five and ten layers. Deep
random circuits scramble the operator: the same sweeps on U M V, with Haar-random U and V, see its
singular values and nothing else of it. Where both give the same overlap, it depends on how many
parameters the circuits have; where the random start still sees the structure of M, few suffice.
The dip is the way from the one to the other. Gates are in SO(2^n); with O(2^n) it is there too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.gates import gate_parameters, random_gate
from mpodis.jobs.records import spread
from mpodis.mpo import compress, mpo_to_dense, truncate
from mpodis.paper.base import Experiment, Options, Panel, Piece
from mpodis.paper.networks import network
from mpodis.quantum import BACKENDS, gate_cost
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

TARGET = 0.94
"""Overlap up to which the paper counts gates."""
WAYS = ("random", "ours")
CLOSE = 0.02
"""Two overlaps that differ by less say the same, for the paragraph."""
VARIANTS = {
    "random": {},
    "more sweeps": {},
    "core updated": {"core": "update"},
    "L-BFGS": {"method": "lbfgs", "tol": 1e-6},
    "near identity": {"init": "identity"},
    "scrambled": {},
}
"""The paper's way, and that with one thing changed; "scrambled" has U M V in the place of M."""
AGAINST_DEPTH = ("near identity", "scrambled")
"""Variants that are run at every depth, the others only where the dip is."""


@dataclass(frozen=True)
class Fig4(Options):
    """Widths of the gates, and how long either way takes.

    Attributes
    ----------
    widths, deepest : tuple of int
        Wires of a gate, and for each width the layers to which our circuits grow.
    depths : tuple of int
        Layers of the random circuits, as far as they have fewer than twice the parameters of
        one gate on all wires.
    sweeps : int
        Of the paper's way.
    start, starts, max_sweeps
        Of ours, see `disentangle`.
    dip_width, dip_depth, dip_sweeps : int
        Where the dip is looked into, and with how many sweeps at the most.
    """

    widths: tuple[int, ...] = (2, 3, 4, 5, 6)
    deepest: tuple[int, ...] = (12, 8, 6, 3, 1)
    depths: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 10, 12, 16, 24)
    sweeps: int = 100
    start: str = "grown"
    starts: int = 4
    max_sweeps: int = 100
    dip_width: int = 4
    dip_depth: int = 6
    dip_sweeps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("widths", "depths", "deepest"):
            if min(getattr(self, name), default=0) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must hold numbers, 1 or more")
        if len(self.widths) != len(self.deepest):
            raise ValueError(
                f"deepest={self.deepest} must hold one number of layers for each of the "
                f"widths={self.widths}"
            )
        if self.dip_width not in self.widths or self.dip_depth not in self.depths:
            raise ValueError(
                f"dip_width={self.dip_width} and dip_depth={self.dip_depth} must be among the "
                f"widths={self.widths} and the depths={self.depths}"
            )


def pieces(options: Fig4) -> list[Piece]:
    found = [Piece(f"cost-{w}body", _cost, {"width": w}) for w in range(2, max(options.widths) + 1)]
    for seed in options.range:
        same = {"data": options.data, "networks": options.networks, "seed": seed}
        paper = same | {"depths": options.depths, "sweeps": options.sweeps}
        for width, deepest in zip(options.widths, options.deepest, strict=True):
            name = f"seed{seed}-{width}body"
            ours = {"deepest": deepest, "init": options.start}
            ours |= {"n_init": options.starts, "max_sweeps": options.max_sweeps}
            found += [
                Piece(f"{name}-random", _again, paper | {"width": width, "variant": "random"}),
                Piece(f"{name}-ours", _grown, same | {"width": width} | ours),
            ]
        for variant in VARIANTS:
            if variant == "random":
                continue
            one = paper | {"width": options.dip_width, "variant": variant}
            if variant not in AGAINST_DEPTH:
                one["depths"] = [options.dip_depth]
            if variant == "more sweeps":
                one["sweeps"] = options.dip_sweeps
            name = f"seed{seed}-dip-{variant.replace(' ', '-')}"
            found.append(Piece(name, _again, one))
    return found


def _again(
    *, data: str, networks: str, seed: int, width: int, depths: list, sweeps: int, variant: str
) -> dict:
    """A new run at each depth: the paper's, or a variant of it."""
    mpo = network(data, networks, seed).mpo.to_mpo()
    run = partial(
        disentangle,
        **{"core": "fixed", "init": "random", "n_init": 1, "method": "sweeps", "tol": 0.0}
        | {"max_sweeps": sweeps, "seed": seed}
        | VARIANTS[variant],
    )
    core = truncate(mpo, max_bond=1).mpo
    if variant == "scrambled":
        mpo = _scrambled(mpo, seed)
    rows = []
    for depth in depths:
        left = brickwall(mpo.L, depth, width)
        if left.n_parameters >= 2 * gate_parameters(mpo.L, "SO"):
            break
        given = {"init": _random_gates(left, core, seed)} if variant == "scrambled" else {}
        found = run(mpo, left=left, **given)
        rows.append((depth, found.overlap, float(found.entropies_after.mean()), found.bound))
    if not rows:
        raise ValueError(
            f"{width}-body gates on {mpo.L} wires need fewer layers than any of {list(depths)} to "
            "have the parameters of two gates on all wires; give smaller depths"
        )
    return _columns(seed, width, variant, mpo.L, rows)


def _scrambled(mpo, seed: int):
    """U M V for Haar-random U and V: nothing is left of M but its singular values."""
    rng = np.random.default_rng([seed, 1])
    left, right = (random_gate(2**mpo.L, group="SO", rng=rng) for _ in range(2))
    return compress(left @ mpo_to_dense(mpo) @ right).mpo


def _random_gates(left: Ansatz, core, seed: int) -> Factorization:
    """Haar-random circuits around a core, which is that of M and not of U M V."""
    rng = np.random.default_rng([seed, 2])
    circuits = [random_circuit(ansatz, seed=rng) for ansatz in (left, left.reversed())]
    return Factorization(circuits[0], core, circuits[1], (2**left.n, 2**left.n))


def _grown(*, data: str, networks: str, seed: int, width: int, deepest: int, **settings) -> dict:
    """One run to the deepest circuit, whose stages are the shallower ones."""
    mpo = network(data, networks, seed).mpo.to_mpo()
    found = disentangle(mpo, left=brickwall(mpo.L, deepest, width), seed=seed, **settings)
    names = ("depth", "overlap", "s_avg", "bound")
    rows = [tuple(row[name] for name in names) for row in found.by_depth().values()]
    return _columns(seed, width, "ours", mpo.L, rows)


def _columns(seed: int, width: int, way: str, n: int, rows: list[tuple]) -> dict:
    """A result as JSON, with the free gates of both circuits by width at each depth."""
    names = ("depth", "overlap", "s_avg", "bound")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    gates = []
    for depth in columns["depth"]:
        widths = [place.width for place in brickwall(n, depth, width).placements]
        gates.append({str(w): 2 * widths.count(w) for w in sorted(set(widths)) if w > 1})
    return {"seed": seed, "width": width, "way": way, **columns, "gates": gates}


def _cost(*, width: int) -> dict:
    """Two-qubit gates of one general gate, by device; None where it is not installed."""
    gate = random_gate(2**width, group="SO", rng=np.random.default_rng(0))
    found: dict = {"width": width}
    for backend in BACKENDS:
        try:
            found[backend] = gate_cost(gate, backend=backend).two_qubit
        except ImportError:
            found[backend] = None
    return found


def _rows(record: dict, way: str, width: int) -> list[dict]:
    rows = (row for row in record["pieces"].values() if "way" in row)
    return [row for row in rows if (row["way"], row["width"]) == (way, width)]


def _curve(record: dict, way: str, width: int, column: str = "overlap") -> tuple[list, list]:
    """Depths, and the median over the networks at each."""
    rows = _rows(record, way, width)
    values = zip(*(row[column] for row in rows), strict=True)
    return rows[0]["depth"], [median(one) for one in values]


def _costs(record: dict) -> dict[str, dict[str, int | None]]:
    """Two-qubit gates of a general gate, by device and width."""
    rows = [row for name, row in record["pieces"].items() if name.startswith("cost-")]
    return {backend: {str(row["width"]): row[backend] for row in rows} for backend in BACKENDS}


def _reached(record: dict, way: str, width: int, backend: str) -> list[float]:
    """Two-qubit gates of the shallowest circuits that reach the target, infinite where none do."""
    costs, found = _costs(record)[backend], []
    for row in _rows(record, way, width):
        ends = [k for k, f in enumerate(row["overlap"]) if f >= TARGET]
        if ends:
            found.append(sum(costs[w] * n for w, n in row["gates"][ends[0]].items()))
        else:
            found.append(math.inf)
    return found


def _devices(record: dict) -> list[str]:
    return [name for name, costs in _costs(record).items() if None not in costs.values()]


def _fall(record: dict, way: str, width: int) -> tuple[float, int]:
    """How far the median lies below that of a shallower circuit at the most, and at which depth."""
    depths, values = _curve(record, way, width)
    falls = np.maximum.accumulate(values) - values
    return float(falls.max()), depths[int(falls.argmax())]


def _same_from(record: dict) -> int | None:
    """Layers from which on the random start does as well on U M V as on M."""
    width = record["options"]["dip_width"]
    depths, values = _curve(record, "random", width)
    scrambled = _curve(record, "scrambled", width)[1]
    apart = [abs(f - g) >= CLOSE for f, g in zip(values, scrambled, strict=True)]
    first = len(apart) - apart[::-1].index(True) if True in apart else 0
    return depths[first] if first < len(depths) else None


def _at_dip(record: dict, way: str) -> list[float]:
    options = record["options"]
    rows = _rows(record, way, options["dip_width"])
    return [row["overlap"][row["depth"].index(options["dip_depth"])] for row in rows]


def tables(record: dict) -> list[Table]:
    options, devices = record["options"], _devices(record)
    by_depth, gates = [], []
    for width in options["widths"]:
        for way in WAYS:
            depths, overlaps = _curve(record, way, width)
            others = [_curve(record, way, width, name)[1] for name in ("bound", "s_avg")]
            for depth, *values in zip(depths, overlaps, *others, strict=True):
                by_depth.append((f"{width}-body", way, depth, *values))
            counts = [_reached(record, way, width, device) for device in devices]
            reach = sum(map(math.isfinite, counts[0]))
            middle = [int(x) if math.isfinite(x := median(count)) else None for count in counts]
            gates.append((f"{width}-body", way, f"{reach} of {len(counts[0])}", *middle))
    width, depth = options["dip_width"], options["dip_depth"]
    sweeps = {"more sweeps": options["dip_sweeps"]}
    dip = [
        (way, sweeps.get(way, options["sweeps"]), spread(_at_dip(record, way))) for way in VARIANTS
    ]
    return [
        Table(
            ("gates", "way", "layers", "overlap", "bound", "S_avg (nats)"),
            by_depth,
            title="medians by depth",
            notes=(
                "random: new random gates at each depth, core fixed; ours: core updated",
                "a gate as wide as the operator needs one layer: more of them are one gate again",
            ),
        ),
        Table(
            ("gates", "way", "networks", *devices),
            gates,
            title=f"two-qubit gates to an overlap of {TARGET:.0%}, median over all networks",
            notes=(
                "one general gate of each width, times the number of gates of both circuits; a "
                "dash where half of the networks or more do not get there",
            ),
        ),
        Table(
            ("variant", "sweeps", "overlap"),
            dip,
            title=f"{depth} layers of {width}-body gates, median (least to most)",
            notes=(
                "each is the paper's way (random) with one change; ten iterations of L-BFGS "
                "count as a sweep; scrambled: U M V with Haar-random U and V in the place of M",
            ),
        ),
    ]


def _draw_depth(column: str, label: str, record: dict, ax: Axes) -> Axes:
    for k, width in enumerate(record["options"]["widths"]):
        for way, style in (("random", "--"), ("ours", "-")):
            depths, values = _curve(record, way, width, column)
            name = f"{width}-body" if way == "ours" else None
            ax.plot(depths, values, style, color=f"C{k}", marker="o", ms=3, lw=1.3, label=name)
    ax.plot([], [], "k--", label="random gates, core fixed")
    ax.plot([], [], "k-", label="ours, core updated")
    ax.set(xlabel="layers a side", ylabel=label, xticks=record["options"]["depths"])
    ax.legend(fontsize="x-small", ncols=2)
    return ax


def _draw_relation(record: dict, ax: Axes) -> Axes:
    for k, width in enumerate(record["options"]["widths"]):
        for way, marker in (("random", "x"), ("ours", "o")):
            rows = _rows(record, way, width)
            points = [np.concatenate([r[c] for r in rows]) for c in ("s_avg", "overlap")]
            name = f"{width}-body" if way == "ours" else None
            ax.plot(*points, marker, color=f"C{k}", ms=3, alpha=0.6, label=name)
    ax.plot([], [], "kx", ms=3, label="random gates, core fixed")
    ax.plot([], [], "ko", ms=3, label="ours, core updated")
    ax.set(xlabel=r"$S_{avg}$ (nats)", ylabel="overlap f")
    ax.legend(fontsize="x-small", ncols=2)
    return ax


def _draw_gates(record: dict, ax: Axes) -> Axes:
    widths, devices = record["options"]["widths"], _devices(record)
    bars = [(way, device) for way in WAYS for device in devices]
    for k, (way, device) in enumerate(bars):
        counts = [_reached(record, way, width, device) for width in widths]
        where = np.array(widths) + 0.8 * ((k + 0.5) / len(bars) - 0.5)
        shown = [x if math.isfinite(x := median(each)) else math.nan for each in counts]
        style = {"color": f"C{k % len(devices)}", "alpha": 1.0 if way == "ours" else 0.4}
        found = ax.bar(where, shown, 0.8 / len(bars), label=f"{way}, {device}", **style)
        reach = [f"{sum(map(math.isfinite, each))}/{len(each)}" for each in counts]
        ax.bar_label(found, reach, fontsize=5)
    ax.set_yscale("log")
    ax.set(xlabel="wires of a gate", xticks=widths, ylabel=f"two-qubit gates to f = {TARGET:.0%}")
    ax.legend(fontsize="x-small", loc="upper left")
    return ax


def _draw_dip(record: dict, ax: Axes) -> Axes:
    width = record["options"]["dip_width"]
    styles = ("C1--", "C3s", "C4v", "C2^", "C0-", "k:")
    for way, style in zip(VARIANTS, styles, strict=True):
        ax.plot(*_curve(record, way, width), style, ms=5, label=way)
    ax.set(xlabel=f"layers a side of {width}-body gates", ylabel="overlap f")
    ax.set_xticks(_curve(record, "random", width)[0])
    ax.legend(fontsize="x-small", loc="lower right")
    return ax


def finding(record: dict) -> str:
    options = record["options"]
    random, ours = ([_fall(record, way, w) for w in options["widths"]] for way in WAYS)
    dips = [
        f"{w}-body {fall:.3f} at {depth} layers"
        for w, (fall, depth) in zip(options["widths"], random, strict=True)
        if fall > 0
    ]
    width, depth = options["dip_width"], options["dip_depth"]
    dip = {way: median(_at_dip(record, way)) for way in VARIANTS}
    apart = median(
        abs(f - g)
        for f, g in zip(_at_dip(record, "random"), _at_dip(record, "scrambled"), strict=True)
    )
    same = _same_from(record)
    reads = (
        f"from {same} layers on the medians differ by less than {CLOSE}"
        if same
        else f"the medians differ by {CLOSE} or more at the deepest circuits"
    )
    return (
        "From random gates with the core fixed the median overlap falls below that of shallower "
        f"circuits by up to {'; '.join(dips) if dips else 'nothing'}; ours by "
        f"{max(fall for fall, _ in ours):.1g} at the most. "
        f"At {depth} layers of {width}-body gates the random start ends at {dip['random']:.3f} "
        f"after {options['sweeps']} sweeps, {dip['more sweeps']:.3f} after "
        f"{options['dip_sweeps']}, {dip['L-BFGS']:.3f} by L-BFGS and {dip['core updated']:.3f} "
        f"with the core updated; the start near the identity at {dip['near identity']:.3f}. On "
        "an operator with the same singular values and random singular vectors the random start "
        f"ends at {dip['scrambled']:.3f}, {apart:.3f} apart for a typical network, and {reads}. "
        "Where they agree, random circuits find nothing of the operator but its singular values, "
        "and it is the number of parameters that decides what they reach; where they do not, the "
        "structure of the operator helps them. " + _fewest(record)
    )


def _fewest(record: dict) -> str:
    """Which gates need the fewest CNOTs."""
    texts = []
    for way in WAYS:
        counts = {
            width: median(_reached(record, way, width, "logical"))
            for width in record["options"]["widths"]
        }
        width = min(counts, key=lambda width: counts[width])
        texts.append(
            f"{way}: {width}-body with {counts[width]:.0f}"
            if math.isfinite(counts[width])
            else f"{way}: none in half of the networks"
        )
    return f"Fewest CNOTs to an overlap of {TARGET:.0%}, {'; '.join(texts)}."


EXPERIMENT = Experiment(
    name="fig4",
    title="Overlap, entropy and gates against the number of layers (Fig. 4)",
    options=Fig4,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "overlap",
            "Overlap against depth, medians.",
            partial(_draw_depth, "overlap", "overlap f"),
        ),
        Panel(
            "entropy",
            "Average bond entropy that the circuits leave, medians.",
            partial(_draw_depth, "s_avg", r"$S_{avg}$ (nats)"),
        ),
        Panel("relation", "Overlap against entropy, every network and depth.", _draw_relation),
        Panel(
            "gates",
            "Two-qubit gates to the paper's overlap; how many networks get there.",
            _draw_gates,
        ),
        Panel(
            "dip",
            "Why random gates dip: there they do no better than on an operator of which only the "
            "singular values are left.",
            _draw_dip,
        ),
    ),
)

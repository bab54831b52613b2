"""Circuits for a dense matrix directly, W = QR and W = USV, against compressing it to an MPO first.

The end of Sec. IV before IV.1 of arXiv 2509.06653v1 expects the circuits of low-bond MPOs to be
less entangling and more structured than those of dense matrices. Three layers: the MPO of the
compact TNN, the first layer of a dense 64-64-10 network, and the latter compressed to an MPO and
healed. On each, circuits for Q, or for U and V, and circuits around a core of small bond dimension,
at equal CNOTs (two a gate of SO(4)); a QR has one circuit, of twice the depth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median, median_high

import numpy as np
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.direct import circuit_qr, circuit_svd
from mpodis.disentangling import disentangle
from mpodis.factorization import dense_overlap
from mpodis.jobs.records import spread
from mpodis.measures import entanglement
from mpodis.mpo import compress
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.layers import trained_layer
from mpodis.paper.networks import TNN_BOND
from mpodis.synthesis import synthesise
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

LAYERS = {
    "tnn": "trained MPO, chi 2",
    "dense": "dense layer",
    "compressed": "dense layer, compressed and healed",
}
LEVELS = (0.9, 0.95)
FACTORS = QR, USV, QR_GIVEN, USV_GIVEN = "QR", "USV", "QR, Q given", "USV, U and V given"
"""Circuits that fit W with the best R or S, and circuits that fit given factors of W."""


@dataclass(frozen=True)
class Direct(Options):
    """Depths of each of two circuits, and how hard every method searches.

    Attributes
    ----------
    depths : tuple of int
    core_bonds : tuple of int
        chi' of the cores that are compared.
    compress_bond : int
        Bond dimension to which the dense layer is compressed.
    starts, explore, max_sweeps : int
        Of every method alike, see `disentangle`; a unitary gets as many starts and sweeps.
    """

    seeds: int = 3
    depths: tuple[int, ...] = (1, 2, 4, 8, 16)
    core_bonds: tuple[int, ...] = (1, 2, 4)
    compress_bond: int = 4
    starts: int = 2
    explore: int = 10
    max_sweeps: int = 60

    def bond(self, layer: str) -> int:
        """Of the layer's MPO; a dense one has none, and uses none."""
        return TNN_BOND if layer == "tnn" else self.compress_bond

    def methods(self, layer: str) -> list[str]:
        """All but cores that hold the whole layer without a circuit."""
        most = math.inf if layer == "dense" else self.bond(layer) - 1
        return [*FACTORS, *(f"chi' {bond}" for bond in self.core_bonds if bond <= most)]


def pieces(options: Direct) -> list[Piece]:
    where = {"data": options.data, "data_dir": options.data_dir, "networks": options.networks}
    search = {name: getattr(options, name) for name in ("starts", "explore", "max_sweeps")}
    found = []
    for layer in LAYERS:
        for seed in options.range:
            same = {"layer": layer, "seed": seed, "bond": options.bond(layer), **where}
            found.append(Piece(f"{layer}-seed{seed}", _operators, same))
            for k, method in enumerate(options.methods(layer)):
                arguments = {**same, "method": method, "depths": list(options.depths), **search}
                found.append(Piece(f"{layer}-seed{seed}-method{k}", _depths, arguments))
    return found


def _operators(*, layer: str, seed: int, **where) -> dict:
    """How entangled W, its factors and a random matrix are."""
    trained = trained_layer(layer, seed=seed, **where)
    matrix = trained.matrix
    u, _, vh = np.linalg.svd(matrix)
    random = np.linalg.qr(np.random.default_rng(seed).normal(size=matrix.shape))[0]
    operators = {"W": matrix, "Q": np.linalg.qr(matrix)[0], "U": u, "V": vh, "random": random}
    return {
        "layer": layer,
        "seed": seed,
        "s_avg": {name: entanglement(x).average for name, x in operators.items()},
        "bond": max(compress(matrix).bonds, default=1),
        "parameters": compress(matrix).parameters,
        "accuracy": trained.accuracy(matrix),
    }


def _depths(
    *,
    layer: str,
    seed: int,
    method: str,
    depths: list[int],
    starts: int,
    explore: int,
    max_sweeps: int,
    **where,
) -> dict:
    """One way to write the layer, at every depth."""
    trained = trained_layer(layer, seed=seed, **where)
    matrix = trained.matrix
    search = {"n_init": starts, "max_sweeps": max_sweeps, "seed": seed}
    rows = []
    for depth in depths:
        began = time.perf_counter()
        circuits, found, parameters = _approximate(matrix, method, depth, search, explore)
        rows.append(
            {
                "depth": depth,
                "cx": sum(_cx(circuit.ansatz) for circuit in circuits),
                "parameters": parameters,
                "overlap": dense_overlap(matrix, found),
                "s_avg": mean(entanglement(circuit.to_dense()).average for circuit in circuits),
                "accuracy": trained.accuracy(found),
                "seconds": time.perf_counter() - began,
            }
        )
    return {"layer": layer, "seed": seed, "method": method, "rows": rows}


def _rotation(matrix):
    """The last column turned round where the determinant is -1; S or R takes its sign."""
    signs = np.ones(len(matrix))
    signs[-1] = np.linalg.slogdet(matrix)[0]
    return matrix * signs


def _cx(ansatz: Ansatz) -> int:
    """Two a gate of SO(4); gates of one wire need none."""
    return 2 * sum(place.width == 2 for place in ansatz.placements)


def _approximate(matrix, method: str, depth: int, search: dict, explore: int):
    """Circuits, dense product and classical parameters; one circuit alone has twice the depth."""
    if method == QR:
        found = circuit_qr(matrix, 2 * depth, init_sweeps=explore, **search)
        return [found.left], found.to_dense(), found.parameters
    if method == USV:
        found = circuit_svd(matrix, depth, init_sweeps=explore, **search)
        return [found.left, found.right], found.to_dense(), found.parameters
    if method == QR_GIVEN:
        q = _rotation(np.linalg.qr(matrix)[0])
        circuit = synthesise(q, 2 * depth, **search).circuit
        upper = np.triu(circuit.to_dense().T @ matrix)
        return [circuit], circuit.to_dense() @ upper, matrix.shape[0] * (matrix.shape[0] + 1) // 2
    if method == USV_GIVEN:
        u, _, vh = np.linalg.svd(matrix)
        places = brickwall(len(matrix).bit_length() - 1, depth)
        left = synthesise(_rotation(u), places, **search).circuit
        right = synthesise(_rotation(vh.T).T, places.reversed(), **search).circuit
        diagonal = np.diag(left.to_dense().T @ matrix @ right.to_dense().T)
        return [left, right], left.to_dense() * diagonal @ right.to_dense(), len(diagonal)
    found = disentangle(
        compress(matrix),
        left=depth,
        max_bond=int(method.split()[1]),
        init="identity",
        init_sweeps=explore,
        **search,
    )
    parts = found.factorization
    return [parts.left, parts.right], parts.to_dense(), parts.parameter_counts()["core"]


def _rows(record: dict, layer: str, method: str) -> list[list[dict]]:
    """The rows of every network, by depth."""
    return [
        piece["rows"]
        for piece in record["pieces"].values()
        if piece["layer"] == layer and piece.get("method") == method
    ]


def _operator_pieces(record: dict, layer: str) -> list[dict]:
    pieces = record["pieces"].values()
    return [piece for piece in pieces if piece["layer"] == layer and "s_avg" in piece]


def _entropies(record: dict, layer: str, operator: str) -> list[float]:
    return [piece["s_avg"][operator] for piece in _operator_pieces(record, layer)]


def _methods(record: dict, layer: str) -> list[str]:
    pieces = record["pieces"].values()
    names = [p["method"] for p in pieces if p["layer"] == layer and "method" in p]
    return list(dict.fromkeys(names))


def _median(record: dict, layer: str, method: str, column: str, depth: int) -> float:
    runs = _rows(record, layer, method)
    return median(row[column] for rows in runs for row in rows if row["depth"] == depth)


def _needed(record: dict, layer: str, method: str, level: float) -> float:
    """CNOTs at which half of the networks have reached an overlap; infinite where they do not."""
    return median_high(
        min((row["cx"] for row in rows if row["overlap"] >= level), default=math.inf)
        for rows in _rows(record, layer, method)
    )


def _count(cx: float, record: dict) -> str:
    most = max(row["cx"] for p in record["pieces"].values() for row in p.get("rows", ()))
    return f"{cx:.0f}" if math.isfinite(cx) else f"more than {most}"


def tables(record: dict) -> list[Table]:
    names = ("W", "Q", "U", "V", "random")
    rows = []
    for layer, title in LAYERS.items():
        found = _operator_pieces(record, layer)
        counts = (max(piece[column] for piece in found) for column in ("bond", "parameters"))
        entropies = (spread(_entropies(record, layer, name), 2) for name in names)
        correct = spread([piece["accuracy"] for piece in found], 1)
        rows.append((title, *counts, *entropies, correct))
    operators = Table(
        ("layer", "bond", "MPO's numbers", *names, "accuracy"),
        rows,
        title="S_avg of W and of its factors (nats), median (least to most)",
        notes=("W = QR = USV; random: an orthogonal matrix of the Haar measure",),
    )
    return [operators, *(_layer_table(record, layer) for layer in LAYERS)]


def _layer_table(record: dict, layer: str) -> Table:
    depths, rows = record["options"]["depths"], []
    for method in _methods(record, layer):
        last = [run[-1] for run in _rows(record, layer, method)]
        overlaps = (_median(record, layer, method, "overlap", depth) for depth in depths)
        needed = (_needed(record, layer, method, level) for level in LEVELS)
        rows.append(
            (
                method,
                last[0]["parameters"],
                *(f"{overlap:.3f}" for overlap in overlaps),
                *(_count(cx, record) for cx in needed),
                spread([row["s_avg"] for row in last], 2),
                spread([row["accuracy"] for row in last], 1),
            )
        )
    headings = [*(f"f, depth {depth}" for depth in depths), *(f"CX, f {x}" for x in LEVELS)]
    return Table(
        ("method", "numbers", *headings, "S_avg of circuits", "accuracy"),
        rows,
        title=f"{LAYERS[layer]}: overlap with W, medians",
        notes=(
            "numbers: those that stay classical (R, S or core); a QR has one circuit of twice "
            "the depth",
            f"entropies and accuracy at depth {depths[-1]}, without retraining",
        ),
    )


def _curves(layer: str) -> Callable[[dict, Axes], Axes]:
    def draw(record: dict, ax: Axes) -> Axes:
        for k, method in enumerate(_methods(record, "dense")):
            runs = _rows(record, layer, method)
            for rows in runs:
                ax.plot(
                    [row["cx"] for row in rows],
                    [row["overlap"] for row in rows],
                    "--" if "given" in method else "-",
                    color=f"C{k}",
                    marker=".",
                    lw=1,
                    label=method if rows is runs[0] else None,
                )
        ax.set(xlabel="CNOTs of the circuits", ylabel="overlap f", title=LAYERS[layer])
        ax.legend(fontsize="x-small")
        return ax

    return draw


def _draw_entropies(record: dict, ax: Axes) -> Axes:
    for k, method in enumerate(_methods(record, "dense")):
        for layer, marker in zip(LAYERS, "osx", strict=True):
            points = [row for rows in _rows(record, layer, method) for row in rows]
            ax.plot(
                [row["s_avg"] for row in points],
                [row["overlap"] for row in points],
                ls="",
                marker=marker,
                ms=4,
                color=f"C{k}",
                alpha=0.7,
                label=method if layer == "dense" else None,
            )
    haar = median(_entropies(record, "tnn", "random"))
    ax.axvline(haar, color="0.5", lw=1, ls=":")
    ax.set(xlabel="S_avg of a circuit (nats)", ylabel="overlap f")
    ax.legend(fontsize="x-small")
    return ax


def finding(record: dict) -> str:
    level, depth = LEVELS[-1], record["options"]["depths"][-1]
    entropies, needs = [], []
    for layer, title in LAYERS.items():
        w, q, u, v = (median(_entropies(record, layer, name)) for name in "WQUV")
        entropies.append(f"{title}: W {w:.2f}, Q {q:.2f}, U {u:.2f}, V {v:.2f}")
        each = (
            f"{method} {_count(_needed(record, layer, method, level), record)}"
            for method in _methods(record, layer)
            if method not in (QR_GIVEN, USV_GIVEN)
        )
        needs.append(f"{title}: {', '.join(each)}")
    pairs = []
    for method in [name for name in _methods(record, "compressed") if "given" not in name]:
        f, dense = (_median(record, x, method, "overlap", depth) for x in ("compressed", "dense"))
        s, most = (_median(record, x, method, "s_avg", depth) for x in ("compressed", "dense"))
        pairs.append(f"{method} f {f:.3f} and {dense:.3f}, S_avg {s:.2f} and {most:.2f}")
    haar = median(_entropies(record, "tnn", "random"))
    given, free = (_median(record, "tnn", method, "overlap", depth) for method in (USV_GIVEN, USV))
    r, s = (_rows(record, "tnn", method)[0][0]["parameters"] for method in (QR, USV))
    whole = max(piece["parameters"] for piece in _operator_pieces(record, "tnn"))
    return (
        f"S_avg in nats, {haar:.2f} for a random orthogonal matrix. {'; '.join(entropies)}. "
        f"CNOTs to f = {level:g}, medians. {'; '.join(needs)}. Circuits of the compressed layer "
        f"and of the dense one at depth {depth}: {'; '.join(pairs)}. With singular vectors as "
        f"given targets f is {given:.3f} on the trained MPO at that depth, with circuits that may "
        f"choose their order and signs {free:.3f}. R holds {r} numbers and S {s}, where the whole "
        f"trained MPO has {whole}."
    )


EXPERIMENT = Experiment(
    name="direct",
    title="Circuits for Q, U and V against compressing first",
    options=Direct,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        *(
            Panel(layer, f"Overlap against CNOTs, one line a network: {title}.", _curves(layer))
            for layer, title in LAYERS.items()
        ),
        Panel(
            "entropies",
            "Overlap against the entanglement of the circuits as operators: trained MPO (dots), "
            "dense (squares), compressed (crosses); dotted: random orthogonal.",
            _draw_entropies,
        ),
    ),
)

"""Table 1 of arXiv 2509.06653v1: how far one layer of n-body gates on each side goes.

The paper keeps the core at the truncated MPO; here the same with the core updated in every sweep,
too, and gates of either determinant (O(2^n), as the paper has them) beside those of determinant 1,
of which one of two wires costs 2 CX instead of 3. Where n does not divide the sites, two
half-shifted layers are allowed, as one would never couple what is left over with the rest; where
it does, a layer may also be the shifted one, on either side. Gates as wide as the operator have an
optimum in closed form, which the search from near the identity comes close to but slowly: the
core's small singular values weigh so little.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from mpodis.circuit.ansatz import Ansatz, brickwall, circuit_group
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.gates import check_group
from mpodis.jobs.records import spread
from mpodis.measures import von_neumann_bound
from mpodis.mpo import truncate
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.networks import network
from mpodis.structured import full_width_gates
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

PAPER = {2: 62, 3: 72, 4: 81, 5: 93, 6: 96}
"""Overlap in percent as published, one network."""
CORES = ("fixed", "update")
GROUPS = ("O", "SO")


@dataclass(frozen=True)
class Table1(Options):
    """Widths and groups of the gates; starts, sweeps and tolerance of each search."""

    widths: tuple[int, ...] = (2, 3, 4, 5, 6)
    groups: tuple[str, ...] = GROUPS
    starts: int = 4
    max_sweeps: int = 200
    tol: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("widths", "groups"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name one or more")
        for group in self.groups:
            check_group(group)


def pieces(options: Table1) -> list[Piece]:
    return [
        Piece(
            f"seed{seed}-{width}body-{group}-{core}",
            _overlap,
            {
                "data": options.data,
                "networks": options.networks,
                "seed": seed,
                "width": width,
                "group": group,
                "core": core,
                "n_init": options.starts,
                "max_sweeps": options.max_sweeps,
                "tol": options.tol,
            },
        )
        for width in options.widths
        for group in options.groups
        for core in CORES
        for seed in options.range
    ]


def _overlap(
    *, data: str, networks: str, seed: int, width: int, group: str, core: str, **search: Any
) -> dict:
    """The best of several layouts; `plain` is the overlap of the paper's, which is the first."""
    mpo = network(data, networks, seed).mpo.to_mpo()
    tried = {
        name: disentangle(mpo, left=left, right=right, init="grown", core=core, seed=seed, **search)
        for name, (left, right) in _layouts(mpo.L, width, group).items()
    }
    plain = next(iter(tried.values())).overlap
    if width == mpo.L:
        start = _aligned(mpo, core, group)
        ansatz = start.left.ansatz
        once = {**search, "n_init": 1}
        tried["closed form"] = disentangle(
            mpo, left=ansatz, core=core, seed=seed, init=start, **once
        )
    layout, best = max(tried.items(), key=lambda item: item[1].overlap)
    circuits = best.factorization.left.ansatz, best.factorization.right.ansatz
    bound = von_neumann_bound(mpo, best.factorization.core, group=circuit_group(*circuits))
    return {
        "seed": seed,
        "width": width,
        "group": group,
        "core": core,
        "layers": circuits[0].depth,
        "layout": layout,
        "plain": plain,
        "overlap": best.overlap,
        "bound": bound,
        "s_avg": float(best.entropies_after.mean()),
    }


def _layouts(n: int, width: int, group: str) -> dict[str, tuple[Ansatz, Ansatz]]:
    """Left and right circuits by name, the paper's layout first."""
    if n % width:
        both = brickwall(n, 2, width, group=group)
        return {"two layers": (both, both.reversed())}
    plain = brickwall(n, 1, width, group=group)
    shifted = brickwall(n, 1, width, parity=1, group=group)
    if width == n:
        return {"plain": (plain, plain)}
    return {
        "plain": (plain, plain),
        "shifted": (shifted, shifted),
        "left shifted": (shifted, plain),
        "right shifted": (plain, shifted),
    }


def _aligned(mpo, core: str, group: str) -> Factorization:
    """Gates as wide as the operator that align its singular vectors with the core's."""
    first = truncate(mpo, max_bond=1).mpo
    return full_width_gates(
        mpo, first, update=core == "update", group=group, n_init=1
    ).factorization


def _values(record: dict, width: int, group: str, core: str, column: str) -> list[float]:
    rows = record["pieces"].values()
    kind = width, group, core
    return [row[column] for row in rows if (row["width"], row["group"], row["core"]) == kind]


def tables(record: dict) -> list[Table]:
    rows = []
    widths, groups = record["options"]["widths"], record["options"]["groups"]
    for width, group, core in [(w, g, c) for w in widths for g in groups for c in CORES]:
        plain, overlap, bound = (
            [100 * x for x in _values(record, width, group, core, column)]
            for column in ("plain", "overlap", "bound")
        )
        gaps = [b - f for b, f in zip(bound, overlap, strict=True)]
        rows.append(
            (
                f"{width}-body",
                group,
                _values(record, width, group, core, "layers")[0],
                core,
                spread(plain, 1),
                spread(overlap, 1),
                spread(bound, 1),
                f"{max(0.0, *gaps):.2g}",
                PAPER.get(width),
            )
        )
    columns = ("gates", "group", "layers", "core", "plain %", "best %", "bound %", "largest gap")
    return [
        Table(
            (*columns, "paper %"),
            rows,
            title="overlap with the product core, median (least to most)",
            notes=(
                "group: O, gates of determinant 1 and -1, as in the paper; SO, of determinant 1",
                "plain: the layout of the paper (two layers where n does not divide the sites), "
                "from near the identity",
                "best: the best of the layouts, chosen by the overlap; for gates as wide as the "
                "operator, from the closed form too",
                "bound, largest gap: of the best; the largest of all networks, in points",
            ),
        )
    ]


def _draw(record: dict, ax: Axes) -> Axes:
    widths, groups = record["options"]["widths"], record["options"]["groups"]
    kinds = list(product(CORES, groups))
    for k, (core, group) in enumerate(kinds):
        fill = {"markerfacecolor": "none"} if group != groups[0] else {}
        for column, style in (
            ("bound", {"marker": "_", "ms": 9}),
            ("overlap", {"marker": "o", "ms": 5, **fill}),
        ):
            for width in widths:
                values = [100 * x for x in _values(record, width, group, core, column)]
                where = [width + 0.18 * (k - (len(kinds) - 1) / 2)] * len(values)
                named = column == "overlap" and width == widths[0]
                label = f"core {core}, {group} gates" if named else None
                alpha = 0.35 if column == "bound" else 0.8
                color = f"C{CORES.index(core)}"
                ax.plot(where, values, ls="", color=color, alpha=alpha, label=label, **style)
    ax.plot([], [], "k_", ms=9, alpha=0.35, label="bounds")
    ax.plot(widths, [PAPER.get(w, float("nan")) for w in widths], "k*", ms=9, label="paper")
    ax.set(xlabel="wires of a gate", ylabel="overlap f (%)", xticks=widths)
    ax.legend(fontsize="small")
    return ax


def finding(record: dict) -> str:
    widths, groups = record["options"]["widths"], record["options"]["groups"]
    sentences = []
    for group in groups:
        parts = []
        for width in widths:
            fixed, joint = (
                [
                    100 * median(_values(record, width, group, core, column))
                    for column in ("plain", "overlap")
                ]
                for core in CORES
            )
            each = [f"{a:.1f} ({b:.1f})" for a, b in (fixed, joint)]
            parts.append(f"{width}-body {each[0]} and {each[1]} %")
        sentences.append(f"{group} gates: " + "; ".join(parts) + ".")
    widest = max(widths)
    bound, overlap = (
        _values(record, widest, groups[0], "fixed", name) for name in ("bound", "overlap")
    )
    gap = max(abs(b - f) for b, f in zip(bound, overlap, strict=True))
    return (
        f"Median overlap over {len(record['seeds'])} networks with the core fixed, and updated "
        "(in brackets: the best layout of each network). " + " ".join(sentences) + " What a wider "
        "gate gains with the core fixed is limited by the bound of that core: its singular values "
        "are those of the truncated MPO, whatever the circuits. The "
        f"{widest}-body {groups[0]} gates are within {gap:.1g} of it in every network."
    )


EXPERIMENT = Experiment(
    name="table1",
    title="Overlap by the width of the gates (Table 1)",
    options=Table1,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(Panel("overlap", "Overlap of every network beside its bound.", _draw),),
)

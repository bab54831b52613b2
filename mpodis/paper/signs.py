"""Operators of positive tensors against those of mixed signs (Sec. IV.1 of arXiv 2509.06653v1).

The paper found disentangling "consistently more effective and efficient for MPOs composed of
positive-valued tensors". Positive tensors also give a dominant product part, and so little
entanglement to begin with. Controls tell the two apart: signs that are moved in without changing
any entropy, and operators of either kind with the entropy that the other one has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import spearmanr

from mpodis.disentangling import disentangle
from mpodis.fit import fit_core
from mpodis.jobs.records import FEWEST, spread
from mpodis.measures import entanglement, overlap
from mpodis.mpo import Compressed, compress
from mpodis.nn import accuracy, train_positive_tnn
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.networks import dataset, network
from mpodis.sites import mpo_to_dense, tensors_to_dense
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

KINDS = {
    "positive": "positive",
    "mixed": "mixed signs",
    "product signs": "positive, times product signs on rows and columns",
    "other signs": "positive, times any signs on rows and columns",
    "no product": "positive, less its best product",
    "channel": "mixed signs, a dominant channel, S of positive",
    "sum": "mixed signs, product + random, S of positive",
    "copying": "positive, copying its bonds, S of mixed",
}
PAIRS = (("positive", "mixed"), ("positive", "channel"), ("positive", "sum"), ("copying", "mixed"))
"""Positive and mixed operators to compare; all but the first at one S_avg."""
TRAINED = "trained"
ENOUGH = 0.99
"""Of the overlap at the end of a run: sweeps are counted until there."""


@dataclass(frozen=True)
class SignsOptions(Options):
    """Bond dimensions of the random operators, their sites, depths, and sweeps at most."""

    bonds: tuple[int, ...] = (2, 4)
    sites: int = 6
    depths: tuple[int, ...] = (2, 4, 8)
    sweeps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bonds or not 2 <= min(self.bonds) <= max(self.bonds) <= 4:
            # a bond that copies needs as many entries of a leg to copy to
            raise ValueError(f"bonds={self.bonds} must be from 2 to 4, at least one")
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths={self.depths} must be 1 or more, at least one")
        if not 2 <= self.sites <= 8:
            raise ValueError(f"sites={self.sites} must be from 2 to 8, the operators are dense")


def pieces(options: SignsOptions) -> list[Piece]:
    same = {"depths": list(options.depths), "sweeps": options.sweeps}
    where = {"data": options.data, "data_dir": options.data_dir, "networks": options.networks}
    random = [
        Piece(
            f"seed{seed}-chi{bond}",
            _random,
            {"seed": seed, "bond": bond, "sites": options.sites, **same},
        )
        for bond in options.bonds
        for seed in options.range
    ]
    trained = [
        Piece(f"seed{seed}-{TRAINED}", _trained, {"seed": seed, **where, **same})
        for seed in options.range
    ]
    return [*random, *trained]


def _random(*, seed: int, bond: int, sites: int, depths: list[int], sweeps: int) -> dict:
    made = operators(bond, sites, np.random.default_rng([seed, bond]))
    kinds = {kind: _measured(matrix, depths, sweeps, seed) for kind, matrix in made.items()}
    return {"seed": seed, "group": f"chi = {bond}", "kinds": kinds}


def _trained(
    *,
    seed: int,
    data: str,
    data_dir: str | None,
    networks: str,
    depths: list[int],
    sweeps: int,
) -> dict:
    images = dataset(data, data_dir)
    models = {
        "positive": train_positive_tnn(images, seed=seed)[0].double(),
        "mixed": network(data, networks, seed),
    }
    kinds = {}
    for kind, model in models.items():
        kinds[kind] = _measured(mpo_to_dense(model.mpo.to_mpo()), depths, sweeps, seed)
        kinds[kind]["accuracy"] = accuracy(model, images.x_test, images.y_test)
    return {"seed": seed, "group": TRAINED, "kinds": kinds}


def operators(bond: int, sites: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Unit-norm dense operators on `sites` qubits, by the names of `KINDS`.

    All but "sum", and what "channel" and "copying" blend in, have cores of the same magnitudes.
    """
    mixed = _normal(bond, sites, rng)
    positive = [np.abs(core) for core in mixed]
    plain, signed = _dense(positive), _dense(mixed)
    size = 2**sites
    rows, columns = (reduce(np.kron, rng.choice([-1.0, 1.0], (sites, 2))) for _ in range(2))
    any_rows, any_columns = rng.choice([-1.0, 1.0], (2, size))
    best = mpo_to_dense(fit_core(_compressed(plain).mpo, max_bond=1))
    channel = [_only_channel(core, rng) for core in mixed]
    one, other = _dense(_normal(1, sites, rng)), _dense(_normal(bond - 1, sites, rng))
    copies = [_copying(core, rng) for core in positive]
    return {
        "positive": plain,
        "mixed": signed,
        "product signs": rows[:, None] * plain * columns,
        "other signs": any_rows[:, None] * plain * any_columns,
        "no product": _unit(plain - best),
        "channel": matched(lambda t: _blend(channel, mixed, t), mean_entropy(plain)),
        "sum": matched(lambda t: _unit(one + t * other), mean_entropy(plain)),
        "copying": matched(lambda t: _blend(positive, copies, t), mean_entropy(signed)),
    }


def matched(family: Callable[[float], np.ndarray], entropy: float) -> np.ndarray:
    """The member of a family over [0, 1], S_avg rising from below, that has a given S_avg."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if mean_entropy(family(middle)) < entropy:
            low = middle
        else:
            high = middle
    return family(high)


def mean_entropy(matrix: np.ndarray) -> float:
    """S_avg in nats, Eq. 5."""
    return float(entanglement(_compressed(matrix).mpo).average)


def _normal(bond: int, sites: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cores with normal entries."""
    bonds = [1, *[bond] * (sites - 1), 1]
    return [rng.normal(size=(bonds[k], 2, 2, bonds[k + 1])) for k in range(sites)]


def _only_channel(core: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A core of the same norm that is zero but for a random (input, output) in the first bonds."""
    found = np.zeros_like(core)
    found[0, :, :, 0] = rng.normal(size=(2, 2))
    return found * (np.linalg.norm(core) / np.linalg.norm(found))


def _copying(core: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hands its bond on and shows it in one entry each of (input, output): much entanglement."""
    left, _, _, right = core.shape
    found = np.zeros((left, 4, right))
    for value, entry in enumerate(rng.permutation(4)[: max(left, right)]):
        found[value if left > 1 else 0, entry, value if right > 1 else 0] = 1.0
    return found.reshape(core.shape)


def _blend(start: list, end: list, t: float) -> np.ndarray:
    return _dense([(1 - t) * a + t * b for a, b in zip(start, end, strict=True)])


def _dense(cores: list) -> np.ndarray:
    return _unit(tensors_to_dense(cores))


def _unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix)


def _compressed(matrix: np.ndarray) -> Compressed:
    return compress(matrix, cutoff=1e-10)


def _measured(matrix: np.ndarray, depths: list[int], sweeps: int, seed: int) -> dict:
    """Entropy of an operator, and how well it is disentangled: f at depth 0 too."""
    compressed = _compressed(matrix)
    mpo = compressed.mpo
    found = {
        "s_avg": mean_entropy(matrix),
        "bond": max(compressed.bonds),
        "overlap": [overlap(mpo, fit_core(mpo, max_bond=1))],
        "bound": [],
        "sweeps": [],
    }
    for depth in depths:
        run = disentangle(
            mpo,
            left=depth,
            method="sweeps",
            init="identity",
            n_init=1,
            max_sweeps=sweeps,
            seed=seed,
        )
        path = 1 - run.path("loss")
        found["overlap"].append(run.overlap)
        found["bound"].append(run.bound)
        found["sweeps"].append(int(np.argmax(path >= ENOUGH * path[-1])))
    return found


def _groups(record: dict) -> list[str]:
    return [*(f"chi = {bond}" for bond in record["options"]["bonds"]), TRAINED]


def _found(record: dict, group: str, kind: str) -> list[dict]:
    """What was measured of a kind, seed by seed."""
    rows = (row for row in record["pieces"].values() if row["group"] == group)
    return [row["kinds"][kind] for row in rows if kind in row["kinds"]]


def _column(record: dict, group: str, kind: str, name: str, k: int | None = None) -> list:
    """A figure of every seed; the k-th where there is one for every depth."""
    values = [one[name] for one in _found(record, group, kind)]
    return values if k is None else [value[k] for value in values]


def _cases(record: dict) -> list[tuple[str, str]]:
    """(group, kind) of everything that was measured."""
    return [(g, kind) for g in _groups(record) for kind in KINDS if _found(record, g, kind)]


def _leads(record: dict, group: str, pair: tuple[str, str], k: int) -> list[float]:
    """By how much f of the positive operator is higher, seed by seed."""
    ours, theirs = (_column(record, group, kind, "overlap", k) for kind in pair)
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def tables(record: dict) -> list[Table]:
    depths = record["options"]["depths"]
    overlaps, efforts, pairs = [], [], []
    for group, kind in _cases(record):
        figures = partial(_column, record, group, kind)
        head = (group, KINDS[kind])
        at_depths = [spread(figures("overlap", k)) for k in range(len(depths) + 1)]
        accuracies = spread(figures("accuracy"), 1) if group == TRAINED else None
        overlaps.append((*head, accuracies, spread(figures("s_avg")), *at_depths))
        sweeps, bounds = (
            [median(figures(name, k)) for k in range(len(depths))] for name in ("sweeps", "bound")
        )
        efforts.append((*head, median(figures("bond")), *sweeps, *bounds))
    for group, pair in _compared(record):
        entropies = [median(_column(record, group, kind, "s_avg")) for kind in pair]
        leads = [_leads(record, group, pair, k) for k in range(len(depths) + 1)]
        ahead = [f"{median(x):+.4f}, {sum(y > 0 for y in x)} of {len(x)}" for x in leads]
        pairs.append((group, *(KINDS[kind] for kind in pair), *entropies, *ahead))
    at = [f"depth {depth}" for depth in depths]
    return [
        Table(
            ("", "operator", "accuracy %", "S_avg", "f, depth 0", *at),
            overlaps,
            title="overlap with the best product (depth 0) and after sweeps, and S_avg before",
            notes=("median (least to most); S_avg in nats",),
        ),
        Table(
            ("", "operator", "bond", *at, *(f"bound, {depth}" for depth in at)),
            efforts,
            title=f"sweeps to {100 * ENOUGH:.0f} % of the final overlap, and von Neumann bound",
            notes=("medians; bound: that of the core at the end",),
        ),
        Table(
            ("", "positive", "mixed", "S_avg", "S_avg", "depth 0", *at),
            pairs,
            title="lead in f of the positive operators, and in how many seeds they lead",
            notes=("medians of the differences, seed by seed; S_avg of either, medians",),
        ),
    ]


def _compared(record: dict) -> list[tuple[str, tuple[str, str]]]:
    """Groups and the pairs that they have."""
    cases = _cases(record)
    return [
        (group, pair)
        for group in _groups(record)
        for pair in PAIRS
        if all((group, kind) in cases for kind in pair)
    ]


def _shown(record: dict) -> int:
    """Number of the depth that is shown, among depth 0 and the others."""
    return 1 + (len(record["options"]["depths"]) - 1) // 2


def _style(kind: str) -> dict:
    """Positive tensors are filled marks."""
    colour = f"C{list(KINDS).index(kind)}"
    filled = kind in ("positive", "copying")
    return {"color": colour, "mfc": colour if filled else "none"}


def _draw_scatter(record: dict, ax: Axes, *, sweeps: bool) -> Axes:
    """What overlap lacks at the depth shown, or the sweeps it took, against S_avg."""
    k, marks = _shown(record), dict(zip(_groups(record), "osDv", strict=False))
    for group, kind in _cases(record):
        x, f = _column(record, group, kind, "s_avg"), _column(record, group, kind, "overlap", k)
        y = _column(record, group, kind, "sweeps", k - 1) if sweeps else [1 - v for v in f]
        label = KINDS[kind] if group != TRAINED else None
        ax.plot(x, y, marks[group], ms=4, alpha=0.7, label=label, **_style(kind))
    effort = f"sweeps to {100 * ENOUGH:.0f} % of the final f"
    ax.set(xscale="log", yscale="linear" if sweeps else "log", xlabel="S_avg before (nats)")
    ax.set_ylabel(f"{effort if sweeps else '1 - f'}, depth {record['options']['depths'][k - 1]}")
    if not sweeps:
        handles, labels = ax.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        ax.legend(named.values(), named.keys(), fontsize="x-small")
    return ax


def _draw_depths(record: dict, ax: Axes, *, trained: bool) -> Axes:
    """Median overlap lost against depth, of trained networks or the largest bond dimension."""
    group = _groups(record)[-1 if trained else -2]
    depths = [0, *record["options"]["depths"]]
    for kind in (kind for g, kind in _cases(record) if g == group):
        lost = [1 - median(_column(record, group, kind, "overlap", k)) for k in range(len(depths))]
        ax.plot(depths, lost, "o-", ms=5, label=KINDS[kind], **_style(kind))
    ax.set(yscale="log", xlabel="layers", ylabel="1 - f, median", xticks=depths)
    ax.set_title(group, fontsize="medium")
    ax.legend(fontsize="x-small")
    return ax


def _sentence(record: dict, group: str) -> str:
    """Positive against mixed in one group."""
    k = _shown(record)
    parts = []
    for kind in PAIRS[0]:
        entropy = median(_column(record, group, kind, "s_avg"))
        f = median(_column(record, group, kind, "overlap", k))
        sweeps = median(_column(record, group, kind, "sweeps", k - 1))
        part = f"f {f:.3f} from S_avg {entropy:.2f} with {sweeps:g} sweeps"
        if group == TRAINED:
            part += f" and {median(_column(record, group, kind, 'accuracy')):.1f} % accuracy"
        parts.append(part)
    leads = _leads(record, group, PAIRS[0], k)
    return (
        f"{group}: positive {parts[0]}, mixed {parts[1]}, positive ahead in "
        f"{sum(x > 0 for x in leads)} of {len(leads)}"
    )


def _ratio(record: dict, group: str, pair: tuple[str, str]) -> float:
    """How many times as much overlap the mixed operator lacks, median over the seeds."""
    k = _shown(record)
    ours, theirs = (_column(record, group, kind, "overlap", k) for kind in pair)
    return median((1 - b) / max(1 - a, 1e-15) for a, b in zip(ours, theirs, strict=True))


def finding(record: dict) -> str:
    k, groups = _shown(record), _groups(record)
    random = groups[:-1]
    leads = [x for group in groups for x in _leads(record, group, PAIRS[0], k)]
    few = len(record["seeds"]) < FEWEST
    holds = "holds" if sum(x > 0 for x in leads) > 0.9 * len(leads) else "does not always hold"
    moved = max(abs(x) for g in random for x in _leads(record, g, ("positive", "product signs"), k))
    raw, low, added, high = ([_ratio(record, g, pair) for g in random] for pair in PAIRS)
    entropies, lost = [], []
    for group, kind in _cases(record):
        entropies += _column(record, group, kind, "s_avg")
        lost += [1 - f for f in _column(record, group, kind, "overlap", k)]
    ranked: Any = spearmanr(entropies, lost)
    rank = float(ranked.statistic)
    # how much of the advantage is left at equal entropy, on a logarithmic scale
    shares = [
        np.log(left) / np.log(whole)
        for at_one_entropy in (low, added, high)
        for left, whole in zip(at_one_entropy, raw, strict=True)
        if whole > 1
    ]
    verdict = "there is no advantage to explain"
    if shares:
        left = "most of the advantage is gone" if np.mean(shares) < 0.5 else "most of it is left"
        verdict = (
            f"{left} at equal entropy: counted by logarithms, {100 * np.mean(shares):.0f} % remain "
            f"on average ({100 * min(shares):.0f} to {100 * max(shares):.0f} %), which can be due "
            "to signs, or to how the entanglement is spread over distances"
        )
    return (
        f"Medians over {len(record['seeds'])} seeds at depth {record['options']['depths'][k - 1]}, "
        "near-identity starts, sweeps with the core updated. "
        + "; ".join(_sentence(record, group) for group in groups)
        + ("." if few else f". That positive tensors are easier {holds}.")
        + " Product signs on rows and columns make "
        "tensors of mixed signs, and gates and core undo them exactly: but for the draw of the "
        f"start nothing changes, and f differs by {moved:.1g} at most. As they are, mixed "
        f"operators lack {_listed(raw)} times as much overlap ({', '.join(random)}); at the S_avg "
        f"of the positive ones {_listed(low)} times if one channel of the bonds dominates and "
        f"{_listed(added)} times as a product plus a random operator, whose entanglement spans "
        f"all sites; at the S_avg of the mixed ones {_listed(high)} times. Over everything "
        f"measured S_avg and 1 - f have a rank correlation of {rank:.2f}."
        + ("" if few else f" So {verdict}.")
    )


def _listed(values: list[float]) -> str:
    return " and ".join(f"{value:.0f}" if value >= 10 else f"{value:.2g}" for value in values)


EXPERIMENT = Experiment(
    name="signs",
    title="Operators of positive tensors against those of mixed signs (Sec. IV.1)",
    options=SignsOptions,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "entropy",
            "Overlap that is lacking against the entropy before, every operator. Filled: positive "
            "tensors; a mark for every bond dimension, and one for trained networks.",
            partial(_draw_scatter, sweeps=False),
        ),
        Panel("sweeps", "Sweeps of the same runs.", partial(_draw_scatter, sweeps=True)),
        Panel(
            "depth-random",
            "Medians by depth, random operators of the largest bond dimension.",
            partial(_draw_depths, trained=False),
        ),
        Panel(
            "depth-trained",
            "Medians by depth, trained networks.",
            partial(_draw_depths, trained=True),
        ),
    ),
)

"""Operators of positive tensors against those of mixed signs (Sec. IV.1 of arXiv 2509.06653v1).

The paper found disentangling "consistently more effective and efficient for MPOs composed of
positive-valued tensors". Positive tensors also give a dominant product part, and so little
entanglement to begin with. Controls tell the two apart: signs that are moved in without changing
any entropy, and operators of either kind with the entropy that the other one has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mpodis.disentangling import disentangle
from mpodis.fit import fit_core
from mpodis.jobs.records import spread
from mpodis.measures import entanglement, overlap
from mpodis.mpo import Compressed, compress
from mpodis.nn import accuracy, train_positive_tnn
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks
from mpodis.paper.networks import TNN_BOND, dataset, network
from mpodis.sites import mpo_to_dense, tensors_to_dense
from mpodis.study import Study
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
GROUP = ["operators", "bond"]
ENOUGH = 0.99
"""Of the overlap at the end of a run: sweeps are counted until there."""


@dataclass(frozen=True)
class SignsOptions(Options):
    """Which random operators, and how they are disentangled."""

    # a bond that copies needs as many entries of a leg to copy to
    bonds: tuple[int, ...] = option((2, 4), "Bonds of random operators.", least=2, most=4)
    sites: int = option(6, "Sites of random operators, which are dense.", least=2, most=8)
    depths: tuple[int, ...] = option((2, 4, 8), "Layers on each side.", least=1)
    sweeps: int = option(100, "Sweeps at most.", least=1)


def study(options: SignsOptions) -> Study:
    cases = [{"operators": "random", "bond": bond} for bond in options.bonds]
    cases.append({"operators": "trained", "bond": TNN_BOND})
    return on_networks(disentangled, options, name="signs", cases=cases)


def disentangled(
    *, operators, bond, seed, data, data_dir, networks, sites, depths, sweeps
) -> dict[str, Any]:
    """All kinds of operators of a seed at every depth."""
    if operators == "random":
        made = random_operators(bond, sites, np.random.default_rng([seed, bond]))
        accuracies = dict.fromkeys(made, math.nan)
    else:
        images = dataset(data, data_dir)
        models = {
            "positive": train_positive_tnn(images, seed=seed)[0].double(),
            "mixed": network(data, networks, seed),
        }
        made = {kind: mpo_to_dense(model.mpo.to_mpo()) for kind, model in models.items()}
        accuracies = {k: accuracy(m, images.x_test, images.y_test) for k, m in models.items()}
    return {
        ROW: [
            {"kind": kind, **row, "accuracy": accuracies[kind]}
            for kind, matrix in made.items()
            for row in measured(matrix, depths, sweeps, seed)
        ]
    }


def random_operators(bond: int, sites: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Unit-norm dense operators on `sites` qubits, by the names of `KINDS`.

    All but "sum", and what "channel" and "copying" blend in, have cores of the same magnitudes.
    """
    mixed = _normal(bond, sites, rng)
    positive = [np.abs(core) for core in mixed]
    plain, signed = dense(positive), dense(mixed)
    size = 2**sites
    rows, columns = (reduce(np.kron, rng.choice([-1.0, 1.0], (sites, 2))) for _ in range(2))
    any_rows, any_columns = rng.choice([-1.0, 1.0], (2, size))
    best = mpo_to_dense(fit_core(_compressed(plain).mpo, max_bond=1))
    channel = [_only_channel(core, rng) for core in mixed]
    one, other = dense(_normal(1, sites, rng)), dense(_normal(bond - 1, sites, rng))
    copies = [copying_core(core, rng) for core in positive]
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


def copying_core(core: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hands its bond on and shows it in one entry each of (input, output): much entanglement."""
    left, _, _, right = core.shape
    found = np.zeros((left, 4, right))
    for value, entry in enumerate(rng.permutation(4)[: max(left, right)]):
        found[value if left > 1 else 0, entry, value if right > 1 else 0] = 1.0
    return found.reshape(core.shape)


def _blend(start: list, end: list, t: float) -> np.ndarray:
    return dense([(1 - t) * a + t * b for a, b in zip(start, end, strict=True)])


def dense(cores: list) -> np.ndarray:
    return _unit(tensors_to_dense(cores))


def _unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix)


def _compressed(matrix: np.ndarray) -> Compressed:
    return compress(matrix, cutoff=1e-10)


def measured(matrix: np.ndarray, depths, max_sweeps: int, seed: int) -> list[dict[str, float]]:
    """Entropy of an operator, and how well it is disentangled; at depth 0 the best product."""
    compressed = _compressed(matrix)
    mpo = compressed.mpo
    same = {"s_avg": mean_entropy(matrix), "mpo_bond": max(compressed.bonds)}
    best = overlap(mpo, fit_core(mpo, max_bond=1))
    rows = [{**same, "depth": 0, "overlap": best, "bound": math.nan, "sweeps": math.nan}]
    plain = {"method": "sweeps", "init": "identity", "n_init": 1}
    for depth in depths:
        run = disentangle(mpo, left=depth, max_sweeps=max_sweeps, seed=seed, **plain)
        path = 1 - run.path("loss")
        sweeps = float(np.argmax(path >= ENOUGH * path[-1]))
        found = {"depth": depth, "overlap": run.overlap, "bound": run.bound, "sweeps": sweeps}
        rows.append({**same, **found})
    return rows


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """Of every pair, seed and depth, the lead in f of the positive one, and what both lack.

    "ratio" is how many times as much overlap the mixed one lacks.
    """
    f = frame.pivot_table("overlap", [*GROUP, "seed", "depth"], "kind")
    pairs = [
        pd.DataFrame({"lead": f[a] - f[b], "ratio": (1 - f[b]) / (1 - f[a]).clip(lower=1e-15)})
        .dropna()
        .assign(pair=f"{a} - {b}")
        for a, b in PAIRS
    ]
    return pd.concat(pairs).reset_index()


def remaining(pairs: pd.DataFrame) -> pd.DataFrame:
    """Share of the advantage that is left at one S_avg: logarithms of the ratios, in percent."""
    ratios = pairs.pivot_table("ratio", [*GROUP, "depth"], "pair", "median", sort=False)
    logs = ratios.map(math.log)
    return 100 * logs.div(logs["positive - mixed"], axis="index").drop(columns="positive - mixed")


def ahead(leads: pd.Series) -> str:
    return f"{leads.median():+.4f}, {(leads > 0).sum()} of {len(leads)}"


def tables(frame: pd.DataFrame) -> list[Table]:
    case, pairs = [*GROUP, "kind"], compared(frame)
    given = frame.query("depth == 0")
    overlaps = frame.pivot_table("overlap", case, "depth", spread, sort=False)
    before = given.pivot_table("s_avg", case, aggfunc=spread)
    accuracies = given.dropna(subset="accuracy").pivot_table("accuracy", case, aggfunc=spread)
    sweeps = frame.query("depth > 0").pivot_table("sweeps", case, "depth", "median", sort=False)
    by_pair = {"index": [*GROUP, "pair"], "columns": "depth", "sort": False}
    return [
        Table.from_dataframe(
            overlaps.add_prefix("f, depth ")
            .join([sweeps.add_prefix("sweeps, depth "), before, accuracies])
            .rename(KINDS),
            title="overlap with the best product (depth 0) and after sweeps, and S_avg before",
            notes=(
                "median (least to most); S_avg in nats; accuracy in percent",
                f"sweeps: to {ENOUGH:.0%} of the final overlap",
            ),
        ),
        Table.from_dataframe(
            pairs.pivot_table("lead", aggfunc=ahead, **by_pair),
            title="lead in f by depth, median, and in how many seeds the positive ones lead",
            notes=("all pairs but positive - mixed have one S_avg",),
        ),
        Table.from_dataframe(
            pairs.pivot_table("ratio", aggfunc="median", **by_pair),
            title="how many times as much overlap the mixed ones lack by depth, medians",
        ),
        Table.from_dataframe(
            remaining(pairs.query("depth > 0 and operators == 'random'")),
            title="share of the logarithm of that ratio that is left at one S_avg (%)",
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    """What overlap lacks at the middle depth against S_avg."""
    depths = sorted(frame["depth"].unique())
    depth = depths[len(depths) // 2]
    found = frame.query("depth == @depth").set_index([*GROUP, "kind"])
    groups = found.index.droplevel("kind").unique()
    for (k, group), (j, kind) in product(enumerate(groups), enumerate(KINDS)):
        each = found.loc[found.index == (*group, kind)]
        positive = kind in ("positive", "copying")
        style = {"color": f"C{j}", "mfc": f"C{j}" if positive else "none", "ms": 4}
        label = None if k else KINDS[kind]
        ax.plot(each["s_avg"], 1 - each["overlap"], "osDv"[k], label=label, **style)
    ax.set(xscale="log", yscale="log", xlabel="S_avg before (nats)", ylabel=f"1 - f, depth {depth}")
    ax.legend(fontsize="x-small")


EXPERIMENT = Experiment(
    name="signs",
    title="Operators of positive tensors against those of mixed signs (Sec. IV.1)",
    options=SignsOptions,
    study=study,
    tabulate=tables,
    panels=(
        Panel(
            "entropy",
            "Overlap that is lacking against the entropy before, every operator. Filled: positive "
            "tensors; a mark for every bond dimension, and one for trained networks.",
            draw,
        ),
    ),
)

"""Circuits trained inside a network (Sec. V): how deep, with which exponent, and from where.

Two questions. "depth": a network 64 -> 64 -> ReLU -> 10 whose first layer is a product core
between circuits of 2-body gates, with batch normalization before the ReLU, is trained by one
recipe with gates ``base @ exp(A)``, A antisymmetric ("skew"), and with the paper's exp(t), t
lower triangular ("triangular"), at several depths, whole and with a batch normalization and a
ReLU after every `CUT` layers ("cut"). The gradient of the loss before training is measured layer
by layer, also for other ways to draw t. "start": the MPO layer of a trained compact TNN is
replaced by a product core and circuits that begin in one of several ways, and the whole network
is trained for the same number of steps.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from matplotlib.axes import Axes

from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.implicit import mean_spread
from mpodis.paper.inside import (
    CUT,
    DRAWS,
    PLACES,
    RECIPES,
    SEEN,
    chosen,
    drawn,
    gains,
    gradients,
    gradients_by_draw,
    mean_log,
    train_depth,
    train_start,
)
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

VANISHED = 0.1
"""Gradients "vanish" where the deepest circuits have less than this share of the shallowest's."""
EXPONENTS = ("skew", "triangular")
WORDS = {
    "skew": "orthogonal gates (antisymmetric exponent)",
    "triangular": "the paper's exponent (lower triangular)",
}
WHEN = ("before", "after")
"""Keys of a piece: what holds before and after training."""
STARTS = {
    "overlap": "explicit, overlap",
    "activations": "explicit, activations",
    "identity": "identity",
    "random": "random",
    "as-trained": "MPO as trained",
}
"""Name of a piece, and in words. The last is the network itself, trained on."""


@dataclass(frozen=True)
class Trained(Options):
    """Which networks, and their recipes.

    Attributes
    ----------
    depths : tuple of int
        Layers of each circuit of a new network, ascending.
    cut_depths : tuple of int
        Those of them at which cut circuits are trained, too.
    start_depths : tuple of int
        Layers of each circuit put into a trained network.
    epochs, learning_rate, batch_size : optional
        Of `train_classifier`; None: those of `RECIPES`. A network that is trained on takes
        batches of this size, too.
    scale : float
        Of the entries of t, see `TriangularCircuitLayer`.
    checks : tuple of int
        Numbers of steps after which the accuracy of a network that is trained on is measured.
    heal_rates : tuple of float
        Its learning rates at the start, one training each; they fall to 0 at the last check along
        a half cosine.
    starts, max_sweeps : int
        Of `disentangle`, for explicit starts.
    validate : bool
        Hold out a tenth of the training images (split seed 0) and report on them. (The networks
        that are trained on have seen them.)
    """

    seeds: int = 5
    depths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    cut_depths: tuple[int, ...] = (8, 16)
    start_depths: tuple[int, ...] = (4, 8)
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    scale: float = 0.5
    checks: tuple[int, ...] = (10, 50, 200, 480)
    heal_rates: tuple[float, ...] = (0.01, 0.03)
    starts: int = 2
    max_sweeps: int = 100
    validate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("depths", "start_depths", "checks"):
            given = getattr(self, name)
            if not given or min(given) < 1 or list(given) != sorted(set(given)):
                raise ValueError(f"{name}={given} must be ascending, from 1 on")
        if any(depth <= CUT or depth not in self.depths for depth in self.cut_depths):
            raise ValueError(f"cut_depths={self.cut_depths} must be of {self.depths}, above {CUT}")
        if self.data not in RECIPES:
            raise ValueError(f"data={self.data!r} has no recipe; use one of {', '.join(RECIPES)}")

    @property
    def recipe(self) -> dict:
        """Of `train_classifier`."""
        given = {k: getattr(self, k) for k in ("epochs", "learning_rate", "batch_size")}
        default = vars(RECIPES[self.data])
        return {k: default[k] if value is None else value for k, value in given.items()}


def pieces(options: Trained) -> list[Piece]:
    images = {k: getattr(options, k) for k in ("data", "data_dir", "validate")}
    recipe, found = options.recipe, []
    healing = {"networks": options.networks, "n_init": options.starts}
    healing |= {"max_sweeps": options.max_sweeps}
    healing |= {"rates": list(options.heal_rates), "batch_size": recipe["batch_size"]}
    healing |= {"checks": list(options.checks)}
    for seed in options.range:
        own = {"depths": list(options.depths), "seed": seed}
        found.append(Piece(f"seed{seed}-draws", gradients_by_draw, images | own))
        for depth in options.depths:
            for exponent in EXPONENTS:
                for cut in (False, True) if depth in options.cut_depths else (False,):
                    name = f"seed{seed}-{exponent}{'-cut' if cut else ''}-depth{depth}"
                    own = {"exponent": exponent, "depth": depth, "cut": cut, "seed": seed}
                    own |= {"scale": options.scale}
                    found.append(Piece(name, train_depth, images | own | recipe))
        for start in STARTS:
            for depth in options.start_depths if start != "as-trained" else (0,):
                name = f"seed{seed}-{start}" + (f"-depth{depth}" if depth else "")
                own = {"start": start, "depth": depth, "seed": seed}
                found.append(Piece(name, train_start, images | own | healing))
    return found


def _variants(record: dict) -> list[str]:
    there = {piece["variant"] for piece in chosen(record, "depth")}
    return [v for e in EXPONENTS for v in (e, f"{e}, cut") if v in there]


def _depths(record: dict, variant: str) -> list[int]:
    return sorted({piece["depth"] for piece in chosen(record, "depth", variant=variant)})


def _part(record: dict) -> str:
    return "held-out training" if record["options"].get("validate") else "test"


def tables(record: dict) -> list[Table]:
    gates, scores = [], []
    for variant in _variants(record):
        for depth in _depths(record, variant):
            found = chosen(record, "depth", variant=variant, depth=depth)
            norms = [mean_log(gradients(record, variant, depth, place)) for place in PLACES]
            off = [statistics.mean(p[k]["distance"] for p in found) for k in WHEN]
            sizes = [mean_log([p[k]["condition"] for p in found]) for k in WHEN]
            cells = [f"{value:.1e}" for value in (*norms, *off, *sizes)]
            gates.append((variant, depth, *cells))
            percent = mean_spread([p["accuracy"] for p in found])
            losses = [mean_spread([p["losses"][k] for p in found], 3) for k in (0, -1)]
            scores.append((variant, depth, found[0]["counts"]["gates"], percent, *losses))
    starts, curve, part = [], {}, _part(record)
    for start, depth in _starts(record):
        found = chosen(record, "start", start=start, depth=depth)
        for rate in record["options"]["heal_rates"]:
            curve = curves(record, start, depth, rate)
            cells = [mean_spread(values).partition(" (")[0] for values in curve.values()]
            starts.append((STARTS[start], depth, rate, found[0]["parameters"], *cells))
    first = chosen(record, "depth")[0]
    recipe = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in first["recipe"].items())
    return [
        Table(
            (
                *("gates", "layers", "gradient, first", "median", "last"),
                *("distance", "trained", "condition", "trained"),
            ),
            gates,
            title="gradients at the start, and how orthogonal the gates are",
            notes=(
                f"norm of the loss's gradient by the generators of a layer of gates, {SEEN} "
                "training images; geometric mean over seeds. median: the last layer before the "
                "core",
                "distance: mean |g^T g - 1| of 2-body gates; condition: of a circuit's matrix, "
                "the larger side, geometric mean; not resolved above 1e15",
            ),
        ),
        _draw_table(record),
        Table(
            ("gates", "layers", "numbers", "accuracy %", "loss, first epoch", "last epoch"),
            scores,
            title=f"accuracy on {part} images, mean +- standard deviation (least to most)",
            notes=(recipe, first["images"]),
        ),
        Table(
            ("start", "layers", "rate", "parameters", *(f"step {k}" for k in curve)),
            starts,
            title=f"accuracy on {part} images (%) against steps, mean +- standard deviation",
            notes=(
                "Adam, its rate falling to 0 at the last step, batches of "
                f"{first['recipe']['batch_size']}; the whole network is trained",
                "parameters: of the whole network",
            ),
        ),
    ]


def _draw_table(record: dict) -> Table:
    depths = record["options"]["depths"]
    rows = []
    for draw in DRAWS:
        ends = [
            mean_log(drawn(record, draw, d, p)) for d in (depths[0], depths[-1]) for p in PLACES
        ]
        sizes = [
            row["condition"]
            for piece in chosen(record, "draws")
            for row in piece["rows"]
            if (row["draw"], row["depth"]) == (draw, depths[-1])
        ]
        rows.append((draw, *(f"{value:.1e}" for value in (*ends, mean_log(sizes)))))
    names = [f"{place}, {depth}" for depth in (depths[0], depths[-1]) for place in PLACES]
    return Table(
        ("entries of the exponent", *names, f"condition, {depths[-1]}"),
        rows,
        title="gradients at the start by how the gates are drawn, at the least and most layers",
        notes=("normal: standard deviation of the entries below the diagonal",),
    )


def _starts(record: dict) -> list[tuple[str, int]]:
    there = {(p["start"], p["depth"]) for p in chosen(record, "start")}
    return sorted(there, key=lambda pair: (pair[1], list(STARTS).index(pair[0])))


def curves(record: dict, start: str, depth: int, rate: float) -> dict[int, list[float]]:
    """Accuracies of the seeds by number of steps."""
    found: dict[int, list[float]] = {}
    for piece in chosen(record, "start", start=start, depth=depth):
        for step, value in piece["steps"][str(rate)]:
            found.setdefault(step, []).append(value)
    return found


def _style(variant: str) -> dict:
    exponent, _, cut = variant.partition(", ")
    colour = f"C{EXPONENTS.index(exponent)}"
    return {"color": colour, "ls": "--" if cut else "-", "marker": "s" if cut else "o", "ms": 4}


def _lines(ax: Axes, record: dict, middle, pick) -> None:
    for variant in _variants(record):
        depths, style = _depths(record, variant), _style(variant)
        values = [pick(variant, depth) for depth in depths]
        ax.plot(depths, [middle(v) for v in values], label=variant, **style)
        low, high = [min(v) for v in values], [max(v) for v in values]
        ax.fill_between(depths, low, high, color=style["color"], alpha=0.12, lw=0)
    depths = sorted({piece["depth"] for piece in chosen(record, "depth")})
    ax.set_xscale("log", base=2)
    ax.set_xticks(depths, depths)
    ax.set_xlabel("layers on each side")


def _draw_gradients(record: dict, ax: Axes) -> Axes:
    _lines(ax, record, mean_log, lambda v, d: gradients(record, v, d, "first"))
    ax.set(yscale="log", ylabel="gradient of the first layer of gates")
    ax.legend(fontsize="small")
    return ax


def _accuracies(record: dict, variant: str, depth: int) -> list[float]:
    return [p["accuracy"] for p in chosen(record, "depth", variant=variant, depth=depth)]


def _draw_depths(record: dict, ax: Axes) -> Axes:
    _lines(ax, record, statistics.mean, lambda v, d: _accuracies(record, v, d))
    ax.set_ylabel(f"{_part(record)} accuracy (%)")
    return ax


def _draw_starts(record: dict, ax: Axes) -> Axes:
    rates, deepest = record["options"]["heal_rates"], record["options"]["start_depths"][-1]
    for start, depth in _starts(record):
        if depth not in (0, deepest):
            continue
        colour = "0.3" if not depth else f"C{list(STARTS).index(start)}"
        for rate, line in zip(rates, ("-", "--", ":", "-."), strict=False):
            curve = curves(record, start, depth, rate)
            missed = [100 - statistics.mean(values) for values in curve.values()]
            label = STARTS[start] if rate == rates[0] else None
            ax.plot(list(curve), missed, marker=".", ls=line, color=colour, label=label)
    checks = record["options"]["checks"]
    ax.set_xscale("symlog", linthresh=checks[0])
    ax.set_xticks([0, *checks], [str(k) for k in (0, *checks)])
    ax.set_yscale("log")
    ax.set_yticks([5, 10, 20, 50, 90], ["5", "10", "20", "50", "90"])
    ax.minorticks_off()
    title = f"{deepest} layers a side; rates {', '.join(map(str, rates))} (solid, dashed)"
    ax.set(xlabel="steps of training", ylabel=f"{_part(record)} error (%)")
    ax.set_title(title, fontsize="small")
    ax.legend(fontsize="x-small")
    return ax


def _draw_draws(record: dict, ax: Axes) -> Axes:
    depths = record["options"]["depths"]
    for k, draw in enumerate(DRAWS):
        values = [mean_log(drawn(record, draw, depth, "last")) for depth in depths]
        ax.plot(depths, values, marker=".", color=f"C{k}", label=draw)
    ax.set_xscale("log", base=2)
    ax.set_xticks(depths, depths)
    ax.set(yscale="log", xlabel="layers on each side", ylabel="gradient of the last layer of gates")
    ax.legend(fontsize="x-small")
    return ax


def _verdict(record: dict) -> str:
    """Whether gradients vanish with depth, said from the record."""
    depths, said = record["options"]["depths"], []
    for draw in DRAWS:
        ratio = gains(record, draw)
        gone = [f"{place} {value:.2g}" for place, value in ratio.items() if value < VANISHED]
        whole = f"do not vanish, {min(ratio.values()):.2g}"
        said.append(f"{draw}: {'vanish, ' + ', '.join(gone) if gone else whole}")
    return (
        f"Gradients before training, from {depths[0]} to {depths[-1]} layers a side, by exponent "
        f"and entries (vanish: a layer of gates keeps less than {VANISHED:g} of the norm; else the "
        f"smallest ratio of the first, the median and the last layer): {'; '.join(said)}."
    )


def _cuts(record: dict, exponent: str) -> str:
    """What cuts do at every depth, seed by seed."""
    parts = []
    for depth in _depths(record, f"{exponent}, cut"):
        pairs = zip(
            _accuracies(record, f"{exponent}, cut", depth),
            _accuracies(record, exponent, depth),
            strict=True,
        )
        gains = [cut - whole for cut, whole in pairs]
        better = sum(gain > 0 for gain in gains)
        mean = statistics.mean(gains)
        parts.append(f"{mean:+.2f} at {depth} ({better} of {len(gains)} seeds better)")
    return ", ".join(parts)


def finding(record: dict) -> str:
    said = [_verdict(record)]
    for exponent in EXPONENTS:
        depths = _depths(record, exponent)
        ends = dict.fromkeys((depths[0], depths[-1]))
        levels = [f"{statistics.mean(_accuracies(record, exponent, d)):.2f} at {d}" for d in ends]
        deepest = chosen(record, "depth", variant=exponent, depth=depths[-1])
        size = mean_log([p["before"]["condition"] for p in deepest])
        said.append(
            f"With {WORDS[exponent]}: mean {_part(record)} accuracy {' and '.join(levels)} "
            f"layers; condition number of the deepest circuits at the start {size:.1e}."
        )
        cuts = _cuts(record, exponent)
        if cuts:
            said.append(f"Cuts after every {CUT} layers change it by {cuts}.")
    for rate in record["options"]["heal_rates"]:
        parts, curve = [], {}
        for start, depth in _starts(record):
            curve = curves(record, start, depth, rate)
            ends = [f"{statistics.mean(curve[k]):.2f}" for k in (0, max(curve))]
            layers = f", {depth} layers" if depth else ""
            parts.append(f"{STARTS[start]}{layers} {' to '.join(ends)}")
        said.append(
            f"{_part(record).capitalize()} accuracy before the first step and after "
            f"{max(curve)}, learning rate {rate}: {'; '.join(parts)}."
        )
    return " ".join(said)


EXPERIMENT = Experiment(
    name="trained",
    title="Circuits trained inside a network: depth, exponent and start",
    options=Trained,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "gradients",
            "Gradient of the loss by the generators of the first layer of gates, before training: "
            "geometric mean and range of the seeds.",
            _draw_gradients,
        ),
        Panel(
            "draws",
            "The same of the last layer, by how the gates are drawn; geometric mean over seeds.",
            _draw_draws,
        ),
        Panel(
            "depth",
            "Accuracy after training, mean and range over seeds, same legend.",
            _draw_depths,
        ),
        Panel(
            "starts",
            "Error of a trained network with its MPO layer replaced, against steps of training.",
            _draw_starts,
        ),
    ),
)

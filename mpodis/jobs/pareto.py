"""`mpodis pareto FILE`: one matrix of the user's own, and the fewest CNOTs that disentangle it."""

from __future__ import annotations

from collections.abc import Sequence

from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.layer import load_problem
from mpodis.options import ParetoConfig
from mpodis.resynthesis import FAMILIES, pareto
from mpodis.tables import Table

__all__ = ["best_within", "pareto_tables", "run_pareto"]

STEPS = 8
"""Numbers of CNOTs at which the families are compared."""


def run_pareto(
    config: ParetoConfig, directory: JobDirectory, *, progbar: bool = False, problem=None
) -> dict:
    """Run the job, or what is left of it; returns (and stores) its results.

    The factorizations of the front lie in `front/`, by their CNOTs.
    """
    weight, compressed, covariance = load_problem(config) if problem is None else problem
    found = pareto(
        compressed,
        max_bond=config.max_bond,
        objective=config.objective,
        covariance=covariance,
        families=config.families or FAMILIES,
        depths=config.depths,
        max_cnots=config.max_cnots,
        n_init=config.n_init,
        rounds=config.rounds,
        trials=config.trials,
        sweeps=config.sweeps,
        beam=config.beam,
        max_sweeps=config.max_sweeps,
        seed=config.seed,
        run_dir=directory.path / "pieces",
        progbar=progbar,
    )
    (directory.path / "front").mkdir(exist_ok=True)
    for point in found.front:
        point.factorization.save(directory.path / "front" / f"{point.cnots}.safetensors")
    bonds = " ".join(map(str, compressed.bonds)) or "none"
    return directory.finish(
        {
            "job": "pareto",
            "name": weight.name,
            "note": weight.note,
            "compression": f"Matrix {' x '.join(map(str, compressed.shape))}, bond dimensions "
            f"{bonds}, compression error {compressed.relative_error:.3g}.",
            **found.to_dict(),
        }
    )


def pareto_tables(results: dict) -> list[Table]:
    """Of `mpodis pareto`: the front, and the families beside it."""
    value = "overlap" if results["objective"] == "overlap" else "activation_error"
    front = sorted((p for p in results["points"] if not p["dominated"]), key=lambda p: p["cnots"])
    columns = ("cnots", "overlap", "bound", "activation_error", "family")
    rows = [(str(p["cnots"]), *(p[name] for name in columns[1:])) for p in front]
    most = front[-1]["cnots"]
    budgets = sorted({round(most * k / STEPS) for k in range(STEPS + 1)})
    return [
        Table(
            ("CNOTs", "overlap", "bound", "act. error", "family"),
            rows,
            title=f"Pareto front of {results['name']}",
            notes=(results["compression"],),
        ),
        _families(results["points"], value, budgets),
    ]


def _families(points: Sequence[dict], value: str, budgets: Sequence[int]) -> Table:
    names = list(dict.fromkeys(p["family"] for p in points))
    rows = [
        (str(n), *(best_within(points, n, value, name) for name in (None, *names))) for n in budgets
    ]
    what = "overlap" if value == "overlap" else "relative error of the activations"
    return Table(("CNOTs", "front", *names), rows, title=f"best {what} with up to so many CNOTs")


def best_within(
    points: Sequence[dict], cnots: int, value: str, family: str | None = None
) -> float | None:
    """The figure of the least loss with up to so many CNOTs, of all or of one family."""
    fitting = [p for p in points if p["cnots"] <= cnots and family in (None, p["family"])]
    best = min(fitting, key=lambda p: p["loss"], default=None)
    return None if best is None else best[value]

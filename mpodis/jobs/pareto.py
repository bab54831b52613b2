"""`mpodis pareto FILE`: one operator of one's own, and the fewest CNOTs that disentangle it."""

from __future__ import annotations

from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.disentangle import Prepared, read_operator
from mpodis.options import ParetoConfig
from mpodis.resynthesis import FAMILIES, pareto
from mpodis.resynthesis.task import Task

__all__ = ["prepare", "run"]


def prepare(options: ParetoConfig) -> Prepared:
    """Read and compress the operator, and check that it is not too large.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_operator`, or if the operator has more than 10 qubits.
    """
    prepared = read_operator(options)
    Task.build(
        prepared.compressed,
        max_bond=options.max_bond,
        objective=options.objective,
        covariance=prepared.covariance,
    )
    return prepared


def run(
    options: ParetoConfig, prepared: Prepared, directory: JobDirectory, *, progbar: bool = False
) -> dict:
    """Find the front, as far as that is not done, and store the results.

    The factorizations of the front lie in `front/`, named after their numbers of CNOTs.
    """
    compressed = prepared.compressed
    found = pareto(
        compressed,
        max_bond=options.max_bond,
        objective=options.objective,
        covariance=prepared.covariance,
        families=options.families or FAMILIES,
        depths=options.depth,
        max_cnots=options.max_cnots,
        n_init=options.n_init,
        rounds=options.rounds,
        trials=options.trials,
        sweeps=options.sweeps,
        beam=options.beam,
        max_sweeps=options.max_sweeps,
        seed=options.seed,
        run_dir=directory.path / "pieces",
        progbar=progbar,
    )
    (directory.path / "front").mkdir(exist_ok=True)
    for point in found.front:
        file = directory.path / "front" / f"{point.cnots}.safetensors"
        directory.save_factorization(file, point.factorization)
    bonds = " ".join(map(str, compressed.bonds)) or "none"
    return directory.finish(
        {
            "job": "pareto",
            "name": prepared.name,
            "note": prepared.note,
            "compression": f"Operator {' x '.join(map(str, compressed.shape))}, bond dimensions "
            f"{bonds}, compression error {compressed.relative_error:.3g}.",
            **found.to_dict(),
        }
    )

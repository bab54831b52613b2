"""`mpodis disentangle FILE`: one matrix of the user's own, compressed and disentangled."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from mpodis.disentangling import disentangle
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.records import costs, trajectory
from mpodis.measures import entanglement, second_moment
from mpodis.mpo import Compressed, check_matrix, compress
from mpodis.options import LayerConfig
from mpodis.structured import low_rank, rank_for, truncated_mpo
from mpodis.weights import load_weight

__all__ = ["load_problem", "run_layer"]


def load_problem(config: LayerConfig):
    """The matrix, its compression and the inputs' second moment; raises on anything wrong."""
    weight = load_weight(config.file, layer=config.layer, transpose=config.transpose)
    matrix = check_matrix(weight.matrix)
    covariance = None
    if config.inputs is not None:
        inputs = load_weight(config.inputs, transpose=False)
        if inputs.matrix.ndim != 2 or inputs.matrix.shape[1] != matrix.shape[0]:
            raise ValueError(
                f"{config.inputs} holds an array of shape {inputs.matrix.shape}; inputs of this "
                f"layer are (samples, {matrix.shape[0]})"
            )
        covariance = second_moment(inputs.matrix)
    compressed = compress(matrix, max_bond=config.compress_bond, rel_error=config.compress_error)
    return weight, compressed, covariance


def run_layer(
    config: LayerConfig, directory: JobDirectory, *, progbar: bool = False, problem=None
) -> dict:
    """Run the job, or what is left of it; returns (and stores) its results."""
    weight, compressed, covariance = load_problem(config) if problem is None else problem
    runs = []
    pool = _pool(config.workers)
    for objective in config.objectives:
        found = disentangle(
            compressed,
            left=_circuit(config.left),
            right=None if config.right is None else _circuit(config.right),
            max_bond=config.max_bond,
            objective=objective,
            covariance=covariance,
            core=config.core,
            method=config.method,
            engine=config.engine,
            environment_bond=config.environment_bond,
            init=config.init,
            n_init=config.n_init,
            n_perturbed=config.n_perturbed,
            max_sweeps=config.max_sweeps,
            max_seconds=config.max_seconds,
            tol=config.tol,
            group=config.group,
            seed=config.seed,
            executor=pool,
            run_dir=directory.path / objective,
            progbar=progbar,
        )
        found.factorization.save(directory.path / f"{objective}.safetensors")
        runs.append(_record(found, directory))
    if pool is not None:
        pool.shutdown()
    gates = max(run["gates"] + run["core_parameters"] for run in runs)
    return directory.finish(
        {
            "job": "disentangle",
            "name": weight.name,
            "note": weight.note,
            "compression": _sentence(compressed),
            "mpo": {
                "entropies": entanglement(compressed.mpo).entropies.tolist(),
                "bonds": list(compressed.bonds),
                "parameters": compressed.parameters,
                "relative_error": compressed.relative_error,
            },
            "runs": runs,
            "baselines": _baselines(compressed, covariance, config, gates),
        }
    )


def _pool(workers: int) -> ProcessPoolExecutor | None:
    """Processes that start afresh: a fork would inherit the threads of BLAS and torch."""
    if workers == 1:
        return None
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _circuit(text: str) -> int | str:
    return int(text) if text.strip().lstrip("-").isdigit() else text


def _record(found, directory: JobDirectory) -> dict:
    objective = found.settings.objective
    parts = found.factorization.parameter_counts()
    return {
        "objective": objective,
        "overlap": found.overlap,
        "bound": found.bound,
        "relative_error": found.relative_error,
        "activation_error": found.activation_error,
        "core_parameters": parts["core"],
        "gates": parts["left gates"] + parts["right gates"],
        **trajectory(found),
        "status": found.status,
        "seconds": found.seconds,
        "costs": directory.stage(
            f"{objective}-costs", lambda: costs(found.factorization, found.settings.seed)
        ),
    }


def _baselines(compressed: Compressed, covariance, config: LayerConfig, parameters: int) -> list:
    matrix = compressed.to_dense()
    rank = rank_for(parameters, matrix.shape)
    rows = []
    for objective in config.objectives:
        weighted = objective == "activations"
        for a in (
            truncated_mpo(
                compressed.mpo,
                config.max_bond,
                shape=compressed.shape,
                covariance=covariance,
                weighted=weighted,
            ),
            low_rank(matrix, rank, covariance=covariance, weighted=weighted),
        ):
            rows.append(
                {
                    "name": a.name,
                    "objective": objective,
                    "overlap": a.overlap,
                    "relative_error": a.relative_error,
                    "activation_error": a.activation_error,
                    "parameters": a.parameters,
                }
            )
    return rows


def _sentence(compressed: Compressed) -> str:
    rows = dict(compressed.table().rows)
    return (
        f"Matrix {rows['matrix']}, zero padding {rows['zero padding']}, {rows['sites']} sites, "
        f"bond dimensions {rows['bond dimensions']}, compression error "
        f"{compressed.relative_error:.3g}."
    )

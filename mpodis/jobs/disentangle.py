"""`mpodis disentangle FILE`: one matrix of the user's own, compressed and disentangled."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpodis.disentangling import disentangle
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.records import approximation_row, costs, trajectory
from mpodis.measures import entanglement, second_moment
from mpodis.mpo import Compressed, check_matrix, compress
from mpodis.optimise.problem import Problem
from mpodis.optimise.result import Disentangled
from mpodis.options import DisentangleConfig, MatrixConfig
from mpodis.sites import site_tensors
from mpodis.structured import low_rank, rank_for, truncated_mpo
from mpodis.weights import Weight, load_weight

__all__ = ["Prepared", "load_matrix", "prepare", "run"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A matrix from a file, its compression, and the second moment of its inputs, if given."""

    weight: Weight
    compressed: Compressed
    covariance: np.ndarray | None


def prepare(options: DisentangleConfig) -> Prepared:
    """Read and compress the matrix, and check that the circuits fit it.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_matrix`, or if a circuit does not fit the matrix.
    """
    prepared = load_matrix(options)
    tensors = site_tensors(prepared.compressed.mpo)
    Problem.build(tensors, *_circuits(options), group=options.group)
    return prepared


def load_matrix(options: MatrixConfig) -> Prepared:
    """Read the matrix and its inputs, and compress it.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or broken, or the inputs do not fit the matrix.
    """
    weight = load_weight(options.file, layer=options.layer, transpose=options.transpose)
    matrix = check_matrix(weight.matrix)
    covariance = None
    if options.inputs is not None:
        inputs = load_weight(options.inputs, transpose=False).matrix
        if inputs.ndim != 2 or inputs.shape[1] != matrix.shape[0]:
            raise ValueError(
                f"{options.inputs} holds an array of shape {inputs.shape}; inputs of this "
                f"layer are (samples, {matrix.shape[0]})"
            )
        covariance = second_moment(inputs)
    compressed = compress(matrix, max_bond=options.compress_bond, rel_error=options.compress_error)
    return Prepared(weight, compressed, covariance)


def run(
    options: DisentangleConfig,
    prepared: Prepared,
    directory: JobDirectory,
    *,
    progbar: bool = False,
) -> dict:
    """Disentangle by every objective, as far as that is not done, and store the results."""
    compressed, rows = prepared.compressed, []
    left, right = _circuits(options)
    with _processes(options.n_jobs) as executor:
        for objective in options.objectives:
            found = disentangle(
                compressed,
                left=left,
                right=right,
                **_search(options, objective),
                covariance=prepared.covariance,
                group=options.group,
                executor=executor,
                run_dir=directory.path / objective,
                progbar=progbar,
            )
            found.factorization.save(directory.path / f"{objective}.safetensors")
            rows.append(_row(found, directory))
    parameters = max(row["gates"] + row["core_parameters"] for row in rows)
    return directory.finish(
        {
            "job": "disentangle",
            "name": prepared.weight.name,
            "note": prepared.weight.note,
            "compression": _sentence(compressed),
            "mpo": {
                "entropies": entanglement(compressed.mpo).entropies.tolist(),
                "bonds": list(compressed.bonds),
                "parameters": compressed.parameters,
                "relative_error": compressed.relative_error,
            },
            "runs": rows,
            "baselines": _baselines(prepared, options, parameters),
        }
    )


def _circuits(options: DisentangleConfig) -> tuple[int | str, int | str | None]:
    """The left and the right circuit, as `disentangle` takes them."""
    depth = options.DEPTH if options.depth is None else options.depth
    left = depth if options.left is None else _depth_or_spec(options.left)
    return left, None if options.right is None else _depth_or_spec(options.right)


def _depth_or_spec(text: str) -> int | str:
    return int(text) if text.strip().lstrip("-").isdigit() else text


def _search(options: DisentangleConfig, objective: str) -> dict[str, Any]:
    """The options of the search that are not left to `disentangle`."""
    given = vars(options.search(objective))
    return {name: value for name, value in given.items() if value is not None}


def _processes(count: int):
    """So many processes as an executor, or nothing where there is but one."""
    if count == 1:
        return nullcontext()
    # a fork would inherit the threads of BLAS and torch
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def _row(found: Disentangled, directory: JobDirectory) -> dict:
    objective = found.options.objective
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
        "remarks": list(found.remarks),
        "seconds": found.seconds,
        "costs": directory.stage(
            f"{objective}-costs", lambda: costs(found.factorization, found.options.seed)
        ),
    }


def _baselines(prepared: Prepared, options: DisentangleConfig, parameters: int) -> list[dict]:
    """Truncation at the same chi' and low rank at the same number of parameters."""
    compressed, covariance = prepared.compressed, prepared.covariance
    matrix = compressed.to_dense()
    rank = rank_for(parameters, matrix.shape)
    rows = []
    for objective in options.objectives:
        weighted = objective == "activations"
        cut = truncated_mpo(
            compressed.mpo,
            options.max_bond,
            shape=compressed.shape,
            covariance=covariance,
            weighted=weighted,
        )
        low = low_rank(matrix, rank, covariance=covariance, weighted=weighted)
        rows += [approximation_row(a) | {"objective": objective} for a in (cut, low)]
    return rows


def _sentence(compressed: Compressed) -> str:
    rows = {str(name): value for name, value in compressed.table().rows}
    return (
        f"Matrix {rows['matrix']}, zero padding {rows['zero padding']}, {rows['sites']} sites, "
        f"bond dimensions {rows['bond dimensions']}, compression error "
        f"{compressed.relative_error:.3g}."
    )

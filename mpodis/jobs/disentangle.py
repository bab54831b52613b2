"""`mpodis disentangle FILE`: one operator of the user's own, compressed and disentangled."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.conventions import padded_shape
from mpodis.disentangling import disentangle
from mpodis.environments.arrays import Backend
from mpodis.factorization import holds_factorization
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.records import approximation_row, costs, trajectory
from mpodis.measures import entanglement, overlap, second_moment
from mpodis.mpo import Compressed, check_matrix, compress, truncate
from mpodis.objectives import make_objective
from mpodis.optimise.problem import Problem
from mpodis.optimise.result import Disentangled
from mpodis.optimise.search import Search
from mpodis.options import DisentangleConfig, OperatorConfig, is_whole
from mpodis.sites import site_tensors
from mpodis.structured import low_rank, rank_for, truncated_mpo
from mpodis.weights import holds_mpo, load_mpo, load_weight
from mpodis.workers import pool

__all__ = ["Prepared", "read_operator", "prepare", "run", "searches"]

DENSE = 2**12
"""Largest dimension of an operator that is compared with baselines as a matrix."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """An operator from a file as an MPO, and the second moment of its inputs, if given.

    Attributes
    ----------
    name, note : str
        What is shown of it: its name, and where it comes from.
    compressed : Compressed
    covariance : array (inputs, inputs) or None
    """

    name: str
    note: str
    compressed: Compressed
    covariance: np.ndarray | None


def prepare(options: DisentangleConfig) -> Prepared:
    """Read and compress the operator, and check that circuits and options fit it.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_operator`, or if a circuit, an engine or an objective does not fit the operator.
    """
    prepared = read_operator(options)
    searches(options, prepared)
    return prepared


def searches(options: DisentangleConfig, prepared: Prepared) -> list[Search]:
    """The searches that the job consists of, one for each objective."""
    compressed, found = prepared.compressed, []
    Backend(options.device, options.dtype)  # whether there is such a device
    for objective in options.objectives:
        goal = make_objective(objective, covariance=prepared.covariance)
        problem = Problem.build(
            site_tensors(compressed.mpo),
            *_circuits(options),
            group=options.group,
            shape=compressed.shape,
            objective=goal,
            max_bond=options.max_bond,
        )
        found.append(Search(problem, options.search(objective), goal))
    return found


def read_operator(options: OperatorConfig) -> Prepared:
    """Read a matrix, an MPO or an MPS, and the inputs of the layer; compress the operator.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or broken, or the inputs do not fit the operator.
    """
    if holds_factorization(options.file):
        raise ValueError(
            f"{options.file} holds circuits and a core, the result of a run; give an operator: a "
            "matrix, or what `mpodis.save_mpo` wrote"
        )
    name, note, compressed = _mpo(options) if holds_mpo(options.file) else _matrix(options)
    covariance = None
    if options.inputs is not None:
        inputs = load_weight(options.inputs, transpose=False).matrix
        rows = compressed.shape[0]
        if inputs.ndim != 2 or inputs.shape[1] != rows:
            raise ValueError(
                f"{options.inputs} holds an array of shape {inputs.shape}; inputs of this "
                f"layer are (samples, {rows})"
            )
        covariance = second_moment(inputs)
    return Prepared(name, note, compressed, covariance)


def _matrix(options: OperatorConfig) -> tuple[str, str, Compressed]:
    """Name, origin and compression of the matrix in a file."""
    weight = load_weight(options.file, layer=options.layer, transpose=options.transpose)
    matrix = check_matrix(weight.matrix)
    limits = {"max_bond": options.compress_bond, "rel_error": options.compress_error}
    return weight.name, weight.note, compress(matrix, **limits)


def _mpo(options: OperatorConfig) -> tuple[str, str, Compressed]:
    """Name, origin and compression of the MPO in a file, whatever its size."""
    for option in ("layer", "transpose"):
        if (value := getattr(options, option)) is not None:
            raise ValueError(
                f"{option}={value!r} is for files of matrices; {options.file} holds one MPO"
            )
    stored = load_mpo(options.file)
    limits = {"max_bond": options.compress_bond, "rel_error": options.compress_error}
    if any(limit is not None for limit in limits.values()):
        stored = replace(truncate(stored.mpo, **limits), shape=stored.shape)
    return Path(options.file).stem, f"{Path(options.file).name}: an MPO", stored


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
    with nullcontext() if options.n_jobs == 1 else pool(options.n_jobs) as executor:
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
            file = directory.path / f"{objective}.safetensors"
            directory.save_factorization(file, found.factorization)
            rows.append(_row(found, directory))
    parameters = max(row["gates"] + row["core_parameters"] for row in rows)
    return directory.finish(
        {
            "job": "disentangle",
            "name": prepared.name,
            "note": prepared.note,
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
    return int(text) if is_whole(text) else text


def _search(options: DisentangleConfig, objective: str) -> dict[str, Any]:
    """The options of the search that are not left to `disentangle`."""
    given = vars(options.search(objective))
    return {name: value for name, value in given.items() if value is not None}


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
    """Truncation at the same chi' and low rank at the same number of parameters.

    Operators that are too large to be dense are compared with the truncated MPO alone.
    """
    compressed, covariance = prepared.compressed, prepared.covariance
    if max(padded_shape(compressed.legs)) > DENSE:
        row = _truncated_row(compressed, options.max_bond)
        return [row | {"objective": objective} for objective in options.objectives]
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


def _truncated_row(compressed: Compressed, max_bond: int) -> dict:
    """The row of the MPO truncated by SVDs, without a dense matrix."""
    cut = truncate(compressed.mpo, max_bond=max_bond)
    padded = compressed.shape != padded_shape(compressed.legs)
    return {
        "name": f"truncated MPO, chi {max_bond}",
        "overlap": overlap(compressed.mpo, cut.mpo),
        "relative_error": math.nan if padded else cut.relative_error,
        "activation_error": math.nan,
        "parameters": cut.parameters,
    }


def _sentence(compressed: Compressed) -> str:
    rows = {str(name): value for name, value in compressed.table().rows}
    return (
        f"Operator {rows['matrix']}, zero padding {rows['zero padding']}, {rows['sites']} sites, "
        f"bond dimensions {rows['bond dimensions']}, compression error "
        f"{compressed.relative_error:.3g}."
    )

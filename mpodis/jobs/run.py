"""`mpodis run`: the whole pipeline of the paper (Fig. 3, Sec. IV) on a real trained layer.

Train the compact TNN, take its MPO layer, disentangle it with every objective at every depth,
put each factorization back into the network without retraining, run the last one on Aer, count
gates, and compare with plain truncation and low rank.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mpodis.circuit.ansatz import brickwall
from mpodis.data import Dataset, load_data
from mpodis.disentangling import disentangle
from mpodis.environments.arrays import Backend
from mpodis.factorization import Factorization, sandwich
from mpodis.files import load_arrays, save_arrays
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.layer_in_network import LayerInNetwork
from mpodis.jobs.records import approximation_row, costs, trajectory
from mpodis.measures import count_parameters, entanglement
from mpodis.mpo import compress
from mpodis.nn import (
    CompactTNN,
    FactorizedLinear,
    accuracy,
    predict,
    replace_layer,
    train_tnn,
)
from mpodis.objectives import make_objective
from mpodis.optimise.problem import Problem
from mpodis.optimise.result import Disentangled
from mpodis.optimise.search import Search
from mpodis.options import RunConfig
from mpodis.quantum import execute_layer
from mpodis.sites import mpo_to_dense, site_tensors
from mpodis.structured import Approximation, low_rank, rank_for, truncated_mpo, zero_matrix

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["factorization_file", "prepare", "run", "stored_network"]

log = logging.getLogger(__name__)


def prepare(options: RunConfig) -> Dataset:
    """Read the images, and check that circuits and options fit before anything is trained.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are no such data, or the search does not fit the layer.
    """
    data = load_data(options.data, data_dir=options.data_dir)
    for depth in options.depth:
        _check_search(options, data, depth)
    return data


def _check_search(options: RunConfig, data: Dataset, depth: int) -> None:
    """Build the searches for another operator of the layer's size."""
    size = data.features
    left = brickwall(size.bit_length() - 1, depth, options.width, group=options.group)
    tensors = site_tensors(compress(np.eye(size)).mpo)
    Backend(options.device, options.dtype)
    for objective in options.objectives:
        search = options.search(objective)
        goal = make_objective(search.objective, covariance=np.eye(size))
        problem = Problem.build(tensors, left, objective=goal, max_bond=options.max_bond)
        Search(problem, search, goal)


def run(
    options: RunConfig, data: Dataset, directory: JobDirectory, *, progbar: bool = False
) -> dict:
    """Do what is left of the work on all networks, and store the results."""
    seeds = range(options.seed, options.seed + options.repeats)
    networks = [_one_network(options, data, directory, seed, progbar=progbar) for seed in seeds]
    return directory.finish(
        {
            "job": "run",
            "data": {"name": data.name, "note": data.note},
            "networks": networks,
            "threads": torch.get_num_threads(),
        }
    )


def _one_network(
    options: RunConfig, data: Dataset, directory: JobDirectory, seed: int, *, progbar: bool
) -> dict:
    name = f"seed{seed}"
    trained = directory.stage(
        f"{name}-train", lambda: _train(options, data, directory, seed, progbar=progbar)
    )
    model = stored_network(options, data, directory, seed)
    mpo = model.mpo.to_mpo()
    layer = LayerInNetwork(model, mpo, data)
    base = accuracy(model, data.x_test, data.y_test)
    log.info("seed %d: network trained, test accuracy %.2f %%", seed, base)
    runs, rows = {}, []
    cases = [(d, o) for d in sorted(options.depth) for o in options.objectives]
    for depth, objective in cases:
        key = f"depth{depth}-{objective}"
        found = disentangle(
            mpo,
            left=brickwall(len(mpo.sites), depth, options.width, group=options.group),
            **_search(options, objective, seed),
            **layer.moments(objective),
            run_dir=directory.path / name / key,
            progbar=progbar,
        )
        rows.append(_row(found, depth, objective, layer))
        runs[key] = trajectory(found)
        log.info(
            "seed %d, depth %d, %s: overlap %.4f (bound %.4f), accuracy %.2f %%",
            *(seed, depth, objective, found.overlap, found.bound, rows[-1]["accuracy"]),
        )
        directory.save_factorization(factorization_file(directory, seed, key), found.factorization)
    # the deepest circuits, by the objective that was named last, are executed
    deepest, objective = cases[-1]
    file = factorization_file(directory, seed, f"depth{deepest}-{objective}")
    last = directory.load_factorization(file)
    parameters = max(row["core"] + row["gates"] for row in rows)
    baselines = directory.stage(
        f"{name}-baselines", lambda: {"rows": _baselines(mpo, layer, options, parameters)}
    )
    entropies = entanglement(mpo)
    return {
        "seed": seed,
        "training": trained,
        "accuracy": {"original": base, "untruncated": layer.score(_untruncated(last, mpo))},
        "mpo": {
            "parameters": count_parameters(mpo),
            "entropies": entropies.entropies.tolist(),
            "maximum": entropies.maximum,
            "bonds": list(entropies.bonds),
        },
        "rows": rows,
        "baselines": baselines["rows"],
        "runs": runs,
        "execution": directory.stage(
            f"{name}-execution",
            lambda: _execute(layer, last, objective, options, progbar=progbar),
        ),
        "costs": directory.stage(f"{name}-costs", lambda: costs(last, seed)),
    }


def _search(options: RunConfig, objective: str, seed: int) -> dict[str, Any]:
    """The options of the search that are not left to `disentangle`."""
    given = vars(options.search(objective)) | {"seed": seed}
    return {name: value for name, value in given.items() if value is not None}


def _model_file(directory: JobDirectory, seed: int) -> Path:
    return directory.path / f"seed{seed}" / "network.safetensors"


def stored_network(
    options: RunConfig, data: Dataset, directory: JobDirectory, seed: int
) -> CompactTNN:
    """The network that was trained, in double precision."""
    model = CompactTNN(inputs=data.features, bond=options.bond, classes=data.classes, seed=seed)
    weights, _ = load_arrays(_model_file(directory, seed))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.double().eval()


def factorization_file(directory: JobDirectory, seed: int, key: str) -> Path:
    """Where the circuits and the core are stored, `key` as "depth8-overlap"."""
    return directory.path / f"seed{seed}" / f"{key}.safetensors"


def _train(
    options: RunConfig, data: Dataset, directory: JobDirectory, seed: int, *, progbar: bool
) -> dict:
    # more threads round differently and are no faster at this size
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, record = train_tnn(
            data,
            seed=seed,
            bond=options.bond,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            progbar=progbar,
        )
    finally:
        torch.set_num_threads(threads)
    file = _model_file(directory, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_arrays(file, {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    return asdict(record)


def _row(found: Disentangled, depth: int, objective: str, layer: LayerInNetwork) -> dict:
    parts = found.factorization.parameter_counts()
    return {
        "depth": depth,
        "objective": objective,
        "accuracy": layer.score(layer.factorized(found.factorization, objective)),
        "overlap": found.overlap,
        "bound": found.bound,
        "relative_error": found.relative_error,
        "activation_error": layer.activation_error(objective, found.factorization.to_dense()),
        "s_avg": float(np.mean(found.entropies_after)),
        "core": parts["core"],
        "gates": parts["left gates"] + parts["right gates"],
        "bias": found.factorization.shape[1] if objective == "sensitivity" else 0,
        "seconds": found.seconds,
        "status": found.status,
    }


def _untruncated(found: Factorization, mpo: MatrixProductOperator) -> torch.nn.Module:
    """Q_L M' Q_R with the exact core M' = Q_L^H M Q_R^H; the accuracy must be that of M."""
    left, right = found.left, found.right
    core = compress(sandwich(left.adjoint(), mpo_to_dense(mpo), right.adjoint())).mpo
    return FactorizedLinear(Factorization(left, core, right, found.shape), dtype=torch.float64)


def _baselines(
    mpo: MatrixProductOperator, layer: LayerInNetwork, options: RunConfig, parameters: int
) -> list[dict]:
    """No layer, truncation at the same chi', low rank at the same parameters.

    All are fitted by the same objectives as the circuits.
    """
    rank = rank_for(parameters, layer.matrix.shape)
    found: list[tuple[str, Approximation]] = [("-", zero_matrix(layer.matrix))]
    for objective in options.objectives:
        moments, weighted = layer.moments(objective), objective != "overlap"
        found += [
            (objective, truncated_mpo(mpo, options.max_bond, **moments, weighted=weighted)),
            (objective, low_rank(layer.matrix, rank, **moments, weighted=weighted)),
        ]
    rows = []
    for objective, a in found:
        bias = layer.bias(objective, a.matrix)
        rows.append(
            approximation_row(a)
            | {
                "objective": objective,
                "accuracy": layer.score_matrix(objective, a.matrix),
                "activation_error": layer.activation_error(objective, a.matrix),
                "bias": 0 if bias is None else len(bias),
            }
        )
    return rows


def _execute(
    layer: LayerInNetwork,
    factorization: Factorization,
    objective: str,
    options: RunConfig,
    *,
    progbar: bool,
) -> dict:
    """Exact execution of both circuits on Aer against the same layer in the network."""
    data, model = layer.data, layer.model
    count = len(data.x_test) if options.execute < 0 else min(options.execute, len(data.x_test))
    if count == 0:
        return {"images": 0}
    x, y = data.x_test[:count], data.y_test[:count]
    module = layer.factorized(factorization, objective)
    began = time.perf_counter()
    measured = execute_layer(factorization, x, progbar=progbar)
    seconds = time.perf_counter() - began
    bias = layer.bias(objective, factorization.to_dense())
    if bias is not None:
        measured = measured + bias
    classical = predict(replace_layer(model, "mpo", module), x)
    # the rest of the network, fed with the outputs of the circuits
    quantum = predict(replace_layer(model, "mpo", torch.nn.Identity()), measured)
    with torch.no_grad():
        expected = module(torch.as_tensor(x)).numpy()
    return {
        "objective": objective,
        "images": count,
        "accuracy_classical": 100 * float(np.mean(classical == y)),
        "accuracy_aer": 100 * float(np.mean(quantum == y)),
        "differences": int(np.sum(classical != quantum)),
        "largest_deviation": float(np.abs(measured - expected).max()),
        "seconds": seconds,
    }

"""`mpodis run`: the whole pipeline of the paper (Fig. 3, Sec. IV) on a real trained layer.

Train the compact TNN, take its MPO layer, disentangle it with every objective at every depth,
put each factorization back into the network without retraining, run the best one on Aer, count
gates, and compare with plain truncation and low rank.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict

import numpy as np
import torch

from mpodis.circuit.ansatz import brickwall
from mpodis.data import Dataset, load_data
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization, sandwich
from mpodis.files import load_arrays, save_arrays
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.layer_in_network import LayerInNetwork
from mpodis.jobs.records import costs, trajectory
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
from mpodis.optimise.result import Disentangled
from mpodis.options import MainConfig
from mpodis.quantum import execute_layer
from mpodis.sites import mpo_to_dense
from mpodis.structured import Approximation, low_rank, rank_for, truncated_mpo, zero_matrix

__all__ = ["run_main"]

log = logging.getLogger(__name__)


def run_main(config: MainConfig, directory: JobDirectory, *, progbar: bool = False) -> dict:
    """Run the job, or what is left of it; returns (and stores) its results."""
    data = load_data(config.data, data_dir=config.data_dir)
    for depth in config.depths:  # circuits that do not fit are noticed before anything is trained
        brickwall(data.features.bit_length() - 1, depth, config.width, group=config.group)
    networks = []
    for seed in range(config.seed, config.seed + config.repeats):
        networks.append(_one_network(config, directory, data, seed, progbar=progbar))
    return directory.finish(
        {
            "job": "run",
            "data": {"name": data.name, "note": data.note},
            "networks": networks,
            "threads": torch.get_num_threads(),
        }
    )


def _one_network(
    config: MainConfig, directory: JobDirectory, data: Dataset, seed: int, *, progbar: bool
) -> dict:
    name = f"seed{seed}"
    trained = directory.stage(
        f"{name}-train", lambda: _train(config, directory, data, seed, progbar=progbar)
    )
    model = CompactTNN(inputs=data.features, bond=config.bond, classes=data.classes, seed=seed)
    weights, _ = load_arrays(_model_file(directory, seed))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model = model.double().eval()
    mpo = model.mpo.to_mpo()
    layer = LayerInNetwork(model, mpo, data)
    base = accuracy(model, data.x_test, data.y_test)
    log.info("seed %d: network trained, test accuracy %.2f %%", seed, base)
    runs, rows = {}, []
    for depth in sorted(config.depths):  # the last, deepest circuits are executed
        for objective in config.objectives:
            key = f"depth{depth}-{objective}"
            found = disentangle(
                mpo,
                left=brickwall(len(mpo.sites), depth, config.width, group=config.group),
                max_bond=config.max_bond,
                objective="overlap" if objective == "overlap" else "activations",
                **layer.moments(objective),
                init=config.init,
                n_init=config.n_init,
                max_sweeps=config.max_sweeps,
                tol=config.tol,
                seed=seed,
                run_dir=directory.path / name / key,
                progbar=progbar,
            )
            rows.append(_row(found, depth, objective, layer))
            runs[key] = trajectory(found)
            log.info(
                "seed %d, depth %d, %s: overlap %.4f (bound %.4f), accuracy %.2f %%",
                *(seed, depth, objective, found.overlap, found.bound, rows[-1]["accuracy"]),
            )
            found.factorization.save(directory.path / name / f"{key}.safetensors")
            last, last_objective = found.factorization, objective
    parameters = max(row["core"] + row["gates"] for row in rows)
    others = directory.stage(
        f"{name}-baselines",
        lambda: {"rows": _baselines(mpo, layer, config, parameters)},
    )
    whole = entanglement(mpo)
    original = {
        "original": base,
        "untruncated": layer.score(_untruncated(last, mpo)),
    }
    return {
        "seed": seed,
        "training": trained,
        "accuracy": original,
        "mpo": {
            "parameters": count_parameters(mpo),
            "entropies": whole.entropies.tolist(),
            "maximum": whole.maximum,
            "bonds": list(whole.bonds),
        },
        "rows": rows,
        "baselines": others["rows"],
        "runs": runs,
        "execution": directory.stage(
            f"{name}-execution",
            lambda: _execute(layer, last, last_objective, config, progbar=progbar),
        ),
        "costs": directory.stage(f"{name}-costs", lambda: costs(last, seed)),
    }


def _model_file(directory: JobDirectory, seed: int):
    return directory.path / f"seed{seed}" / "network.safetensors"


def _train(
    config: MainConfig, directory: JobDirectory, data: Dataset, seed: int, *, progbar: bool
) -> dict:
    # more threads round differently and are no faster at this size
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, record = train_tnn(
            data,
            seed=seed,
            bond=config.bond,
            epochs=config.epochs,
            learning_rate=config.learning_rate,
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


def _untruncated(found: Factorization, mpo) -> torch.nn.Module:
    """Q_L M' Q_R with the core left whole, M' = Q_L^H M Q_R^H: the network must not notice."""
    left, right = found.left, found.right
    core = compress(sandwich(left.adjoint(), mpo_to_dense(mpo), right.adjoint())).mpo
    return FactorizedLinear(Factorization(left, core, right, found.shape), dtype=torch.float64)


def _baselines(mpo, layer: LayerInNetwork, config: MainConfig, parameters: int) -> list[dict]:
    """No layer, truncation at the same chi', low rank at the same parameters: our recipe each."""
    rank = rank_for(parameters, layer.matrix.shape)
    found: list[tuple[str, Approximation]] = [("-", zero_matrix(layer.matrix))]
    for objective in config.objectives:
        options = layer.moments(objective) | {"weighted": objective != "overlap"}
        found.append((objective, truncated_mpo(mpo, config.max_bond, **options)))
        found.append((objective, low_rank(layer.matrix, rank, **options)))
    rows = []
    for objective, a in found:
        bias = layer.bias(objective, a.matrix)
        rows.append(
            {
                "name": a.name,
                "objective": objective,
                "accuracy": layer.score_matrix(objective, a.matrix),
                "overlap": a.overlap,
                "relative_error": a.relative_error,
                "activation_error": layer.activation_error(objective, a.matrix),
                "parameters": a.parameters,
                "bias": 0 if bias is None else len(bias),
            }
        )
    return rows


def _execute(
    layer: LayerInNetwork,
    factorization: Factorization,
    objective: str,
    config: MainConfig,
    *,
    progbar: bool,
) -> dict:
    """Exact execution of both circuits on Aer against the same layer in the network."""
    data, model = layer.data, layer.model
    count = len(data.x_test) if config.execute < 0 else min(config.execute, len(data.x_test))
    if count == 0:
        return {"images": 0}
    x, y = data.x_test[:count], data.y_test[:count]
    module = layer.factorized(factorization, objective)
    began = time.perf_counter()
    measured = execute_layer(factorization, x, progbar=progbar)
    seconds = time.perf_counter() - began
    if module.bias is not None:
        measured = measured + module.bias.numpy()
    classical = predict(replace_layer(model, "mpo", module), x)
    # the rest of the network, fed with what the circuits gave
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

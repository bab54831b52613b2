"""`mpodis run`: the whole pipeline of the paper (Fig. 3, Sec. IV) on a real trained layer.

Train the compact TNN, take its MPO layer, disentangle it with both objectives at every depth,
put each factorization back into the network without retraining, run the best one on Aer, count
gates, and compare with plain truncation and low rank.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mpodis.ansatz import brickwall
from mpodis.baselines import Approximation, low_rank, rank_for, truncation, zero
from mpodis.config import MainConfig
from mpodis.data import Dataset, load_data
from mpodis.disentangle import Disentangled, disentangle
from mpodis.experiments.run_directory import JobDirectory
from mpodis.factorization import Factorization, sandwich
from mpodis.measures import count_parameters, entanglement, second_moment
from mpodis.mpo import compress, mpo_to_dense
from mpodis.nn import (
    CompactTNN,
    FactorizedLinear,
    accuracy,
    layer_inputs,
    linear_from_matrix,
    predict,
    replace_layer,
    train_tnn,
)
from mpodis.quantum import cost_table, hybrid_layer
from mpodis.tables import Table

__all__ = ["accuracy_table", "run_main", "summary_tables"]


def run_main(config: MainConfig, directory: JobDirectory, *, progress: bool = False) -> dict:
    """Run the job, or what is left of it; returns (and stores) its results."""
    data = load_data(config.data, data_dir=config.data_dir)
    networks = []
    for seed in range(config.seed, config.seed + config.repeats):
        networks.append(_one_network(config, directory, data, seed, progress=progress))
    return directory.finish(
        {
            "job": "run",
            "data": {"name": data.name, "note": data.note},
            "networks": networks,
            "threads": torch.get_num_threads(),
        }
    )


def _one_network(
    config: MainConfig, directory: JobDirectory, data: Dataset, seed: int, *, progress: bool
) -> dict:
    name = f"seed{seed}"
    trained = directory.stage(
        f"{name}-train", lambda: _train(config, directory, data, seed, progress=progress)
    )
    model = CompactTNN(inputs=data.features, bond=config.bond, classes=data.classes, seed=seed)
    model.load_state_dict(load_file(_model_file(directory, seed)))
    model = model.double().eval()
    mpo = model.mpo.to_mpo()
    covariance = second_moment(layer_inputs(model, "mpo", data.x_train))

    def score(module) -> float:
        return accuracy(replace_layer(model, "mpo", module), data.x_test, data.y_test)

    runs, rows = {}, []
    for depth in config.depths:
        for objective in config.objectives:
            key = f"depth{depth}-{objective}"
            found = disentangle(
                mpo,
                left=brickwall(len(mpo.sites), depth, config.width, group=config.group),
                core_bond=config.core_bond,
                objective=objective,
                covariance=covariance,
                starts=config.starts,
                max_sweeps=config.max_sweeps,
                tol=config.tol,
                seed=seed,
                run_dir=directory.path / name / key,
                progress=progress,
            )
            layer = FactorizedLinear(found.factorization, dtype=torch.float64)
            rows.append(_row(found, depth, score(layer)))
            runs[key] = _run_record(found)
            found.factorization.save(directory.path / name / f"{key}.safetensors")
            last = found
    parameters = max(row["core"] + row["gates"] for row in rows)
    others = directory.stage(
        f"{name}-baselines",
        lambda: {"rows": _baselines(mpo, covariance, config, parameters, score)},
    )
    original = {
        "original": accuracy(model, data.x_test, data.y_test),
        "untruncated": score(_untruncated(last, mpo)),
    }
    return {
        "seed": seed,
        "training": trained,
        "accuracy": original,
        "mpo": {
            "parameters": count_parameters(mpo),
            "entropies": entanglement(mpo).entropies.tolist(),
            "maximum": entanglement(mpo).maximum,
            "bonds": list(entanglement(mpo).bonds),
        },
        "rows": rows,
        "baselines": others["rows"],
        "runs": runs,
        "execution": directory.stage(
            f"{name}-execution",
            lambda: _execute(model, last.factorization, data, config, progress=progress),
        ),
        "costs": directory.stage(f"{name}-costs", lambda: _costs(last.factorization, seed)),
    }


def _model_file(directory: JobDirectory, seed: int):
    return directory.path / f"seed{seed}" / "network.safetensors"


def _train(
    config: MainConfig, directory: JobDirectory, data: Dataset, seed: int, *, progress: bool
) -> dict:
    # more threads round differently and are no faster at this size
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, record = train_tnn(data, seed=seed, bond=config.bond, progress=progress)
    finally:
        torch.set_num_threads(threads)
    file = _model_file(directory, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    return asdict(record)


def _row(found: Disentangled, depth: int, percent: float) -> dict:
    parts = found.factorization.parameter_counts()
    return {
        "depth": depth,
        "objective": found.settings.objective,
        "accuracy": percent,
        "overlap": found.overlap,
        "bound": found.bound,
        "relative_error": found.relative_error,
        "activation_error": found.activation_error,
        "s_avg": float(np.mean(found.entropies_after)),
        "core": parts["core"],
        "gates": parts["left gates"] + parts["right gates"],
        "seconds": found.seconds,
        "status": found.status,
    }


def _run_record(found: Disentangled) -> dict:
    names = ("sweep", "phase", "loss", "overlap", "bound", "s_avg", "activations", "seconds")
    return {
        "entropies": found.entropies_after.tolist(),
        "history": {n: found.history.column(n, start=found.start).tolist() for n in names},
    }


def _untruncated(found: Disentangled, mpo) -> torch.nn.Module:
    """Q_L M' Q_R with the core left whole, M' = Q_L^H M Q_R^H: the network must not notice."""
    left, right = found.factorization.left, found.factorization.right
    core = compress(sandwich(left.adjoint(), mpo_to_dense(mpo), right.adjoint())).mpo
    whole = Factorization(left, core, right, found.factorization.shape)
    return FactorizedLinear(whole, dtype=torch.float64)


def _baselines(mpo, covariance, config: MainConfig, parameters: int, score) -> list[dict]:
    matrix = mpo_to_dense(mpo)
    rank = rank_for(parameters, matrix.shape)
    found: list[tuple[str, Approximation]] = [("-", zero(matrix))]
    for objective in config.objectives:
        weighted = objective == "activations"
        cut = truncation(mpo, config.core_bond, covariance=covariance, weighted=weighted)
        found.append((objective, cut))
        low = low_rank(matrix, rank, covariance=covariance, weighted=weighted)
        found.append((objective, low))
    return [
        {
            "name": a.name,
            "objective": objective,
            "accuracy": score(linear_from_matrix(a.matrix, dtype=torch.float64)),
            "overlap": a.overlap,
            "relative_error": a.relative_error,
            "activation_error": a.activation_error,
            "parameters": a.parameters,
        }
        for objective, a in found
    ]


def _execute(model, factorization, data: Dataset, config: MainConfig, *, progress: bool) -> dict:
    """Exact execution of both circuits on Aer against the same layer in the network."""
    count = len(data.x_test) if config.execute < 0 else min(config.execute, len(data.x_test))
    if count == 0:
        return {"images": 0}
    x, y = data.x_test[:count], data.y_test[:count]
    began = time.perf_counter()
    measured = hybrid_layer(factorization, x, progress=progress)
    seconds = time.perf_counter() - began
    layer = FactorizedLinear(factorization, dtype=torch.float64)
    classical = predict(replace_layer(model, "mpo", layer), x)
    # the rest of the network, fed with what the circuits gave
    quantum = predict(replace_layer(model, "mpo", torch.nn.Identity()), measured)
    with torch.no_grad():
        expected = layer(torch.as_tensor(x)).numpy()
    return {
        "images": count,
        "accuracy_classical": 100 * float(np.mean(classical == y)),
        "accuracy_aer": 100 * float(np.mean(quantum == y)),
        "differences": int(np.sum(classical != quantum)),
        "largest_deviation": float(np.abs(measured - expected).max()),
        "seconds": seconds,
    }


def _costs(factorization: Factorization, seed: int) -> dict:
    try:
        return cost_table(factorization, seed=seed).to_dict()
    except ImportError as missing:
        table = cost_table(factorization, backends=("logical",), seed=seed)
        return table.to_dict() | {"note": str(missing)}


def accuracy_table(network: dict) -> Table:
    """Accuracies, errors and parameters of one network, ours beside the baselines."""
    base = network["accuracy"]["original"]
    rows: list[tuple] = [
        (
            "original MPO",
            "-",
            base,
            0.0,
            1.0,
            None,
            0.0,
            float(np.mean(network["mpo"]["entropies"])),
            network["mpo"]["parameters"],
            0,
        ),
        ("Q_L M' Q_R, whole core", "-", network["accuracy"]["untruncated"], *[None] * 7),
    ]
    for row in network["rows"]:
        rows.append(
            (
                f"disentangled, depth {row['depth']}",
                row["objective"],
                row["accuracy"],
                row["accuracy"] - base,
                row["overlap"],
                row["bound"],
                row["activation_error"],
                row["s_avg"],
                row["core"],
                row["gates"],
            )
        )
    for row in network["baselines"]:
        rows.append(
            (
                row["name"],
                row["objective"],
                row["accuracy"],
                row["accuracy"] - base,
                row["overlap"],
                None,
                row["activation_error"],
                None,
                row["parameters"],
                0,
            )
        )
    columns = ("layer", "objective", "accuracy %", "change", "overlap", "bound", "act. error")
    return Table(
        (*columns, "S_avg", "parameters", "gate par."),
        [(r[0], r[1], _percent(r[2]), _signed(r[3]), *r[4:]) for r in rows],
        title=f"network of seed {network['seed']}, no retraining",
    )


def summary_tables(results: dict) -> list[Table]:
    """What `mpodis show` prints: accuracies, medians over the networks, execution, gates."""
    networks = results["networks"]
    tables = [accuracy_table(networks[0])]
    if len(networks) > 1:
        tables.append(_median_table(networks))
    tables.append(_execution_table(networks))
    costs = networks[0]["costs"]
    names = ("part", "backend", "optimization_level", "one_qubit", "two_qubit", "depth")
    tables.append(
        Table(
            ("part", "backend", "level", "1-qubit", "2-qubit", "depth"),
            [tuple(row[n] for n in names) for row in costs["rows"]],
            title=f"gates of the deepest circuits, seed {networks[0]['seed']}",
            notes=(costs["note"],) if "note" in costs else (),
        )
    )
    return tables


def _median_table(networks: list[dict]) -> Table:
    def lines(part: str, label):
        keyed: dict[tuple, list] = {}
        for network in networks:
            base = network["accuracy"]["original"]
            for row in network[part]:
                key = (label(row), row["objective"])
                keyed.setdefault(key, []).append((base - row["accuracy"], row["overlap"]))
        return keyed

    found = lines("rows", lambda row: f"disentangled, depth {row['depth']}")
    found |= lines("baselines", lambda row: row["name"])
    rows = []
    for (name, objective), values in found.items():
        lost = [v[0] for v in values]
        middle = statistics.median(v[1] for v in values)
        figures = (statistics.median(lost), min(lost), max(lost))
        rows.append((name, objective, *map(_percent, figures), middle))
    accuracies = [n["accuracy"]["original"] for n in networks]
    spread = statistics.stdev(accuracies)
    return Table(
        ("layer", "objective", "points lost, median", "least", "most", "overlap, median"),
        rows,
        title=f"{len(networks)} networks, seeds {networks[0]['seed']}-{networks[-1]['seed']}, "
        f"test accuracy {statistics.mean(accuracies):.2f} +- {spread:.2f} % before",
    )


def _execution_table(networks: list[dict]) -> Table:
    return Table(
        ("seed", "images", "in the network %", "on Aer %", "differences", "deviation", "seconds"),
        [
            (
                str(n["seed"]),
                e["images"],
                *(_percent(e.get(k)) for k in ("accuracy_classical", "accuracy_aer")),
                *(e.get(k) for k in ("differences", "largest_deviation", "seconds")),
            )
            for n in networks
            for e in [n["execution"]]
        ],
        title="deepest circuits executed exactly (Aer statevector), core and rest classical",
    )


def _percent(value) -> str | None:
    return None if value is None else f"{value:.2f}"


def _signed(value) -> str | None:
    return None if value is None else f"{value:+.2f}"

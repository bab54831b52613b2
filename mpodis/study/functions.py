"""What a study file may run beside the package's own functions: networks, trained and replaced.

Each takes numbers and texts, a seed among them, and returns a flat dict.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpodis.options import RunConfig
from mpodis.study.measured import NATS

if TYPE_CHECKING:
    from mpodis.jobs.directory import JobDirectory

__all__ = ["evaluate", "run", "train"]


def train(
    *,
    network: str = "mpo",
    data: str = "digits",
    data_dir: str | None = None,
    size: int | None = None,
    bond: int | None = None,
    hidden: Sequence[int] | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Train a network, and measure its accuracies in percent.

    Parameters
    ----------
    network : {"mpo", "dense"}
        An MPO layer and a head (`mpodis.nn.CompactTNN`), or dense layers with ReLUs
        (`mpodis.nn.dense_network`).
    data, data_dir, size
        See `mpodis.data.load_data`.
    bond : int, optional
        Bond dimension of the MPO layer, 2 by default.
    hidden : sequence of int, optional
        Widths of the hidden layers of a dense network, (64,) by default.
    epochs, learning_rate, batch_size : optional
        Instead of those of the data's recipe.
    seed : int
        Of the weights and the order of the images.

    Returns
    -------
    dict
        "accuracy" on the test images, "train_accuracy", "parameters", "training_seconds", "losses"
        of every epoch (nats), and of an MPO layer "s_avg" and "entropies" (nats).

    Raises
    ------
    ValueError
        If an option belongs to the other network, or there is no such network or data.

    Examples
    --------
    >>> from mpodis.study.functions import train
    >>> found = train(bond=4, epochs=1)
    >>> sorted(found)[:4]
    ['accuracy', 'entropies', 'losses', 'parameters']
    """
    from mpodis.data import load_data
    from mpodis.measures import entanglement
    from mpodis.nn import accuracy, train_dense, train_tnn

    other = {"mpo": ("hidden", hidden), "dense": ("bond", bond)}
    if network not in other:
        raise ValueError(f"network={network!r} is not known; use {' or '.join(other)}")
    name, value = other[network]
    if value is not None:
        raise ValueError(f"{name}={value!r} is no option of network={network!r}; leave it out")
    images = load_data(data, data_dir=data_dir, size=size)
    recipe: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate}
    recipe |= {"batch_size": batch_size, "seed": seed}
    found: dict[str, Any] = {}
    if network == "mpo":
        model, record = train_tnn(images, bond=2 if bond is None else bond, **recipe)
        entropies = entanglement(model.mpo.to_mpo())
        found = {"s_avg": entropies.average, "entropies": ("bond", entropies.entropies, NATS)}
    else:
        model, record = train_dense(images, hidden=(64,) if hidden is None else hidden, **recipe)
    return {
        "accuracy": accuracy(model, images.x_test, images.y_test),
        "train_accuracy": record.train_accuracy,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "training_seconds": record.seconds,
        **found,
        "losses": ("epoch", list(record.losses), NATS),
    }


def _takes_options(**own: Any) -> Callable[[Callable], Callable]:
    """Give a function the options of `RunConfig` for one network, depth and objective."""

    def decorate(function: Callable) -> Callable:
        taken = {"repeats", "objectives", "seed", *own}
        given = {f.name: f.default for f in fields(RunConfig) if f.name not in taken}
        kind = inspect.Parameter.KEYWORD_ONLY
        every = {**own, **given, "seed": 0, "run_dir": None}
        function.__dict__["__signature__"] = inspect.Signature(
            [inspect.Parameter(name, kind, default=default) for name, default in every.items()]
        )  # where a study looks for the names of settings
        return function

    return decorate


@_takes_options(depth=8, objective="overlap", execute=0)
def run(
    *,
    depth: int = 8,
    objective: str = "overlap",
    execute: int = 0,
    seed: int = 0,
    run_dir: str | os.PathLike | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The main job on one network: train it, disentangle its MPO layer, and put it back.

    Parameters
    ----------
    depth : int
        Layers on either side.
    objective : {"overlap", "activations", "sensitivity"}
    execute : int
        Test images whose circuits Aer executes; -1 takes all.
    seed : int
        Of the network and the search.
    run_dir : path, optional
        A directory in which a job that was killed goes on.
    **options
        Of `mpodis run` by their names in a TOML file: data, bond, epochs, max_bond, max_sweeps ..

    Returns
    -------
    dict
        Accuracies in percent ("accuracy" with the layer replaced, "accuracy_original",
        "accuracy_untruncated", of the baselines "accuracy_truncated" and "accuracy_low_rank", and
        "accuracy_executed" where images were executed), the figures of the search, and the
        "entropies" of the MPO layer (nats).

    Examples
    --------
    >>> from mpodis.study.functions import run
    >>> found = run(depth=1, epochs=2, n_init=1, max_sweeps=2)
    >>> 0 < found["overlap"] <= found["bound"] <= 1
    True
    """
    with _job(depth, objective, execute, seed, run_dir, options) as (_, _, results):
        return _flat(results)


@_takes_options(depth=8, objective="overlap", readout=None, shots=None, images=100, execute=0)
def evaluate(
    *,
    depth: int = 8,
    objective: str = "overlap",
    readout: str | None = None,
    shots: int | None = None,
    images: int = 100,
    execute: int = 0,
    seed: int = 0,
    run_dir: str | os.PathLike | None = None,
    **options: Any,
) -> dict[str, Any]:
    """What `run` does, and then the accuracy of the network with its circuits executed on Aer.

    Parameters
    ----------
    readout : str, optional
        How vectors are read out, a name in `mpodis.quantum.READOUTS`; by default exactly, from the
        state vector.
    shots : int, optional
        Of every setting of the readout.
    images : int
        The first so many of the test images; 0: all.
    depth, objective, execute, seed, run_dir, **options
        See `run`.

    Returns
    -------
    dict
        That of `run`, and "executed" and "classical" accuracy of these images (percent), "lost"
        between them with its 95 % interval, and the circuits and shots that it took.

    Examples
    --------
    >>> from mpodis.study.functions import evaluate
    >>> found = evaluate(depth=1, epochs=2, n_init=1, max_sweeps=2, images=5)
    >>> found["executed"] == found["classical"]
    True
    """
    import torch

    from mpodis.jobs import run as job
    from mpodis.jobs.layer_in_network import LayerInNetwork
    from mpodis.nn import HybridLinear, replace_layer
    from mpodis.quantum import evaluate as execute_network

    with _job(depth, objective, execute, seed, run_dir, options) as (config, directory, results):
        images_of = job.prepare(config)
        model = job.stored_network(config, images_of, directory, seed)
        file = job.factorization_file(directory, seed, f"depth{depth}-{objective}")
        circuits = directory.load_factorization(file)
        bias = None
        if objective == "sensitivity":
            layer = LayerInNetwork(model, model.mpo.to_mpo(), images_of)
            bias = layer.bias(objective, circuits.to_dense())
        module = HybridLinear.from_factorization(circuits, bias=bias, dtype=torch.float64)
        found = execute_network(
            replace_layer(model, "mpo", module),
            images_of,
            readout=readout,
            shots=shots,
            images=images,
            seed=seed,
        ).to_dict()
        low, high = found.pop("lost_interval")
        del found["interval"]
        found["execution_seconds"] = found.pop("seconds")
        return {**_flat(results), **found, "lost_low": low, "lost_high": high}


@contextlib.contextmanager
def _job(
    depth: int,
    objective: str,
    execute: int,
    seed: int,
    run_dir: str | os.PathLike | None,
    options: dict[str, Any],
) -> Iterator[tuple[RunConfig, JobDirectory, dict[str, Any]]]:
    """The main job on one network, in a directory that goes afterwards unless it was named."""
    from mpodis.jobs import run as job
    from mpodis.jobs.directory import JobDirectory

    given: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in options.items()
    }
    config = RunConfig(
        **given, depth=(depth,), objectives=(objective,), execute=execute, seed=seed, repeats=1
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run" if run_dir is None else Path(run_dir)
        if (path / "config.json").is_file():
            directory, _, _ = JobDirectory.open(path)
        else:
            directory = JobDirectory.create(path, "run", config)
        yield config, directory, job.run(config, job.prepare(config), directory)


def _flat(results: dict[str, Any]) -> dict[str, Any]:
    """The figures of a job on one network at one depth by one objective."""
    (network,) = results["networks"]
    (row,) = network["rows"]
    cut, rank = (
        next(b["accuracy"] for b in network["baselines"] if b["name"].startswith(name))
        for name in ("truncated MPO", "low rank")
    )
    executed = network["execution"]
    names = ("overlap", "bound", "relative_error", "activation_error", "s_avg", "status")
    return {
        "accuracy": row["accuracy"],
        "accuracy_original": network["accuracy"]["original"],
        "accuracy_untruncated": network["accuracy"]["untruncated"],
        "accuracy_truncated": cut,
        "accuracy_low_rank": rank,
        **({"accuracy_executed": executed["accuracy_aer"]} if executed["images"] else {}),
        **{name: row[name] for name in names},
        "parameters": row["core"] + row["gates"] + row["bias"],
        "parameters_before": network["mpo"]["parameters"],
        "search_seconds": row["seconds"],
        "entropies": ("bond", network["mpo"]["entropies"], NATS),
    }

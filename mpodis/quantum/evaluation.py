"""Accuracy of a whole network whose circuits are executed, also those cut by activations."""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpodis.circuit.circuit import Circuit
from mpodis.progress import bar
from mpodis.quantum.execution import run_circuit
from mpodis.quantum.readout import READOUTS, Readout, find_readout
from mpodis.quantum.runners import Runner, ShotRunner, StatevectorRunner
from mpodis.store import locked_pieces
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from torch import nn

    from mpodis.data import Dataset

__all__ = ["Evaluation", "evaluate"]

_NORMAL = 1.959964
"""Standard deviations of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Evaluation(Tabular):
    """Accuracy of a network with executed circuits; prints and shows itself as a table.

    Attributes
    ----------
    images : int
    executed, classical : float
        Accuracy in percent with the circuits executed, and of the same network in torch.
    interval : (float, float)
        Wilson's 95 % confidence interval of `executed`.
    lost : float
        classical - executed, in percentage points.
    lost_interval : (float, float)
        95 % confidence interval of `lost`, from the images that only one of the two gets right.
    agreement : float
        Percent of the images to which both give the same class.
    vectors, circuits, shots : int
        Vectors that were sent through sub-circuits, and all circuits and shots for them.
    seconds : float
        Wall time of the execution, batches of interrupted calls included.
    """

    images: int
    executed: float
    classical: float
    interval: tuple[float, float]
    lost: float
    lost_interval: tuple[float, float]
    agreement: float
    vectors: int
    circuits: int
    shots: int
    seconds: float

    def table(self) -> Table:
        low, high = self.interval
        less, more = self.lost_interval
        rows = [
            ("accuracy, executed", f"{self.executed:.2f} % ({low:.2f} to {high:.2f})"),
            ("accuracy, in torch", f"{self.classical:.2f} %"),
            ("lost", f"{self.lost:+.2f} points ({less:+.2f} to {more:+.2f})"),
            ("same class", f"{self.agreement:.2f} %"),
            ("images", f"{self.images:,}"),
            ("vectors through circuits", f"{self.vectors:,}"),
            ("circuits", f"{self.circuits:,}"),
            ("shots", f"{self.shots:,}"),
            ("wall time", f"{self.seconds:.1f} s"),
        ]
        return Table(
            ("", "value"), rows, title="Executed network", notes=("intervals: 95 %, by the images",)
        )

    def to_dict(self) -> dict[str, Any]:
        """The attributes, ready for JSON."""
        return asdict(self)


class _Counter:
    """`run_circuit` on a runner, which counts the vectors, circuits and shots that it takes."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.counts = np.zeros(3, np.int64)

    def __call__(self, circuit: Circuit, rows: np.ndarray) -> np.ndarray:
        is_complex = circuit.is_complex or np.iscomplexobj(rows)
        vectors = int((rows != 0).any(axis=1).sum())  # zero vectors are not run
        circuits = self.runner.n_circuits(circuit.n, is_complex=is_complex)
        shots = self.runner.n_shots(circuit.n, is_complex=is_complex)
        self.counts += vectors * np.array([1, circuits, shots])
        return run_circuit(circuit, rows, runner=self.runner)


def evaluate(
    model: nn.Module,
    data: Dataset | tuple[np.ndarray, np.ndarray],
    *,
    runner: Runner | None = None,
    readout: str | Readout | None = None,
    shots: int | None = None,
    images: int = 0,
    batch_size: int = 100,
    run_dir: str | os.PathLike | None = None,
    seed: int = 0,
    progbar: bool = False,
) -> Evaluation:
    """Test accuracy of a network with the circuits of all its `HybridLinear` layers executed.

    Everything else is classical: the cores, activation functions and batch normalizations between
    sub-circuits (Eq. 7 of arXiv 2509.06653v1).

    Parameters
    ----------
    model : torch.nn.Module
        Not changed. A `Factorization` becomes a layer by `HybridLinear.from_factorization`.
    data : Dataset or (x, y)
        The test images of a data set; or arrays (n, ...) and labels (n,).
    runner : Runner, optional
        `StatevectorRunner` (exact) by default, `ShotRunner`, `NoisyRunner`, `DeviceRunner`, or an
        object of your own with their methods. Instead of it:
    readout : Readout, or the name of one, optional
        Of a noiseless device; `READOUTS` has the names.
    shots : int, optional
        Of a readout that is named: in each setting (in all, for "interference").
    images : int
        The first so many; 0: all.
    batch_size : int
        Images that are executed, and saved, together.
    run_dir : path, optional
        Directory of finished batches; a call with the same arguments goes on from it.
    seed : int
        Of a readout.
    progbar : bool
        Show a progress bar.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If the model has no circuits to execute, data do not fit together, both a runner and a
        readout are given, or `run_dir` holds another evaluation.
    BlockingIOError
        If another process works in `run_dir`.

    Examples
    --------
    >>> from torch import nn
    >>> from mpodis.data import load_data
    >>> from mpodis.nn import HybridLinear
    >>> layer = HybridLinear(((2, 2),) * 6, 2, left="2b", seed=0)
    >>> data = load_data("digits")
    >>> evaluate(nn.Sequential(layer, nn.Linear(64, 10)), data, images=5).circuits
    5
    """
    from mpodis.nn import predict, with_external_circuits  # loads torch here and not before

    x, y = data if isinstance(data, tuple) else (data.x_test, data.y_test)
    x, y = np.asarray(x, np.float64), np.asarray(y)
    if len(x) != len(y) or not len(x):
        raise ValueError(f"{len(x)} images need as many labels, and at least one; got {len(y)}")
    if not np.isfinite(x).all():
        raise ValueError("the images hold NaN or infinite values; check how they were scaled")
    for name, value, least in (("images", images, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name}={value} must be {least} or more")
    x, y = x[: images or None], y[: images or None]
    runner = _runner(runner, readout, shots, seed)
    counter = _Counter(runner)
    executed = with_external_circuits(model, counter)
    classical = with_external_circuits(model, Circuit.apply)
    identity = {} if run_dir is None else _identity(classical, runner, x, batch_size)
    classes, counts, seconds = [], np.zeros(3, np.int64), 0.0
    with (
        locked_pieces(run_dir, identity, kind="evaluate") as store,
        bar(total=len(x), desc="executed", enabled=progbar) as shown,
    ):
        right = done = 0
        for k, begin in enumerate(range(0, len(x), batch_size)):
            piece = store.load(f"batch-{k}") if store else None
            if piece is None:
                part, began = x[begin : begin + batch_size], time.perf_counter()
                counter.counts[:] = 0
                found = np.stack([predict(executed, part), predict(classical, part)], axis=1)
                arrays = {"classes": found, "counts": counter.counts.copy()}
                piece = arrays, {"seconds": time.perf_counter() - began}
                if store:
                    store.save(f"batch-{k}", *piece)
            arrays, notes = piece
            classes.append(arrays["classes"])
            counts += arrays["counts"]
            seconds += notes["seconds"]
            done += len(classes[-1])
            right += int((classes[-1][:, 0] == y[begin : begin + batch_size]).sum())
            shown.update(len(classes[-1]), accuracy=f"{100 * right / done:.2f} %")
    return summarised(np.concatenate(classes), y, counts, seconds)


def _runner(
    runner: Runner | None, readout: str | Readout | None, shots: int | None, seed: int
) -> Runner:
    """The runner that the arguments of `evaluate` mean."""
    if runner is not None:
        if readout is not None or shots is not None:
            raise ValueError("give a runner, or a readout and shots; a runner has its own")
        return runner
    if readout is None:
        if shots is not None:
            raise ValueError(f"shots={shots} need a readout: {', '.join(READOUTS)}")
        return StatevectorRunner()
    return ShotRunner(find_readout(readout, shots=shots), seed=seed)


def _identity(
    network: nn.Module, runner: Runner, x: np.ndarray, batch_size: int
) -> dict[str, str | int]:
    """Everything that a result depends on."""
    weights = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.numpy().tobytes())
    return {
        "network": weights.hexdigest(),
        "images": hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest(),
        "runner": repr(runner),
        "batch_size": batch_size,
    }


def summarised(
    classes: np.ndarray, y: np.ndarray, counts: np.ndarray, seconds: float
) -> Evaluation:
    """An `Evaluation` from the classes (images, 2) that were found, executed and in torch.

    `y` (images,) are the labels, `counts` the vectors, circuits and shots.
    """
    n = len(y)
    executed, classical = (classes[:, k] == y for k in range(2))
    share = float(executed.mean())
    worse, better = int((classical & ~executed).sum()), int((executed & ~classical).sum())
    lost = (worse - better) / n
    half = _NORMAL * math.sqrt(max(worse + better - n * lost**2, 0)) / n
    low, high = wilson_interval(share, n)
    return Evaluation(
        images=n,
        executed=100 * share,
        classical=100 * float(classical.mean()),
        interval=(100 * low, 100 * high),
        lost=100 * lost,
        lost_interval=(100 * (lost - half), 100 * (lost + half)),
        agreement=100 * float((classes[:, 0] == classes[:, 1]).mean()),
        vectors=int(counts[0]),
        circuits=int(counts[1]),
        shots=int(counts[2]),
        seconds=seconds,
    )


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a probability, from the share of n independent trials."""
    z2 = _NORMAL**2 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return max(middle - half, 0.0), min(middle + half, 1.0)

"""Accuracy of a whole network whose circuits are executed, cut ones included; resumable."""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.circuit import Circuit
from mpodis.files import load_arrays, save_arrays
from mpodis.progress import bar
from mpodis.quantum.readout import Hypercube, Interference, Readout, Tomography
from mpodis.quantum.run import Runner, ShotRunner, StatevectorRunner, run_circuit
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from torch import nn

    from mpodis.data import Dataset

__all__ = ["READOUTS", "Evaluation", "evaluate"]

READOUTS = {"tomography": Tomography, "interference": Interference, "hypercube": Hypercube}
_NORMAL = 1.959964
"""Quantile of a 95 % interval."""


@dataclass(frozen=True)
class Evaluation(Tabular):
    """What a network with executed circuits gets right; prints and shows itself as a table.

    Attributes
    ----------
    images : int
    executed, classical : float
        Accuracy in percent with the circuits executed, and of the same network in torch.
    interval : tuple of float
        95 % of `executed` (Wilson's).
    lost : float
        classical - executed, in points.
    lost_interval : tuple of float
        95 % of `lost`, from the images on which the two disagree about being right.
    agreement : float
        Percent of the images given the same class.
    vectors, circuits, shots : int
        Vectors that were sent through sub-circuits, and circuits and shots that took in all.
    seconds : float
        Wall time of the execution, resumed parts included.
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

    def to_dict(self) -> dict[str, object]:
        """The attributes, ready for JSON."""
        return asdict(self)


class _Counted:
    """`run_circuit` on a runner, and what it has taken."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.taken = np.zeros(3, np.int64)  # vectors, circuits, shots

    def __call__(self, circuit: Circuit, rows: np.ndarray) -> np.ndarray:
        kind = {"is_complex": circuit.is_complex or np.iscomplexobj(rows)}
        count = int((rows != 0).any(axis=1).sum())  # zero vectors are not run
        self.taken += count * np.array(
            [1, self.runner.settings(circuit.n, **kind), self.runner.shots_of(circuit.n, **kind)]
        )
        return run_circuit(circuit, rows, runner=self.runner)


def evaluate(
    model: nn.Module,
    data: Dataset | tuple[np.ndarray, np.ndarray],
    *,
    runner: Runner | None = None,
    readout: str | Readout | None = None,
    shots: int | None = None,
    images: int = 0,
    batch: int = 100,
    checkpoint: str | os.PathLike | None = None,
    seed: int = 0,
    progbar: bool = False,
) -> Evaluation:
    """Test accuracy with the circuits of all `HybridLinear` layers executed.

    Everything else, the cores, activation functions and batch normalizations at cuts, is classical
    (Eq. 7 of arXiv 2509.06653v1).

    Parameters
    ----------
    model : torch.nn.Module
        Not changed. Explicit solutions come in by `HybridLinear.from_factorization`.
    data : Dataset or (x, y)
        The test images of a data set; or arrays (n, ...) and labels (n,).
    runner : Runner, optional
        `StatevectorRunner` (exact) by default, `ShotRunner`, `NoisyRunner`, `DeviceRunner`, or
        anything with their methods. Instead of it:
    readout : {"tomography", "interference", "hypercube"} or Readout, optional
        Of a noiseless device.
    shots : int, optional
        Of a readout that is named: in each setting (in all, for "interference").
    images : int
        The first so many; 0: all.
    batch : int
        Images between two checkpoints.
    checkpoint : path, optional
        File (safetensors) of what is done so far; a call with the same arguments goes on from it.
    seed : int
        Of a readout.
    progress : bool

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If the model has no circuits to execute, data do not fit together, both a runner and a
        readout are given, or the checkpoint is of something else.
    """
    from mpodis.nn import predict, with_external_circuits  # torch is loaded here and not before

    x, y = (data.x_test, data.y_test) if hasattr(data, "x_test") else data
    x, y = np.asarray(x, np.float64), np.asarray(y)
    if len(x) != len(y) or not len(x):
        raise ValueError(f"{len(x)} images need as many labels, and at least one; got {len(y)}")
    if not np.isfinite(x).all():
        raise ValueError("the images hold NaN or infinite values; check how they were scaled")
    for name, value, least in (("images", images, 0), ("batch", batch, 1)):
        if value < least:
            raise ValueError(f"{name}={value} must be {least} or more")
    x, y = x[: images or None], y[: images or None]
    runner = _runner(runner, readout, shots, seed)
    run = _Counted(runner)
    network = with_external_circuits(model, run)
    plain = with_external_circuits(model, Circuit.apply)
    state = _State(checkpoint, _fingerprint(plain, runner, x, batch))
    began, (*before, spent) = time.perf_counter(), state.counts
    with bar(total=len(x), desc="executed", enabled=progbar) as shown:
        shown.update(len(state.classes))
        while len(state.classes) < len(x):
            part = x[len(state.classes) : len(state.classes) + batch]
            classes = np.stack([predict(network, part), predict(plain, part)], axis=1)
            seconds = spent + time.perf_counter() - began
            state.add(classes, np.array([*(before + run.taken), seconds]))
            right = np.mean(state.classes[:, 0] == y[: len(state.classes)])
            shown.update(len(part), accuracy=f"{100 * right:.2f} %")
    return _evaluation(state, y)


def _runner(runner, readout, shots, seed: int) -> Runner:
    if runner is not None:
        if readout is not None or shots is not None:
            raise ValueError("give a runner, or a readout and shots; a runner has its own")
        return runner
    if readout is None:
        if shots is not None:
            raise ValueError(f"shots={shots} need a readout: {', '.join(READOUTS)}")
        return StatevectorRunner()
    if isinstance(readout, str):
        if readout not in READOUTS:
            raise ValueError(f"readout={readout!r} is not known; use {', '.join(READOUTS)}")
        readout = READOUTS[readout]() if shots is None else READOUTS[readout](shots)
    elif shots is not None:
        raise ValueError(f"{readout} has its own shots; shots={shots} is for one that is named")
    return ShotRunner(readout, seed=seed)


class _State:
    """Classes given so far, executed and in torch, and what they took; on disk if wanted."""

    def __init__(self, path, fingerprint: str) -> None:
        self.path, self.fingerprint = None if path is None else Path(path), fingerprint
        self.classes = np.zeros((0, 2), np.int64)
        self.counts = np.zeros(4)
        if self.path is None or not self.path.exists():
            return
        arrays, metadata = load_arrays(self.path)
        if metadata.get("evaluation") != fingerprint:
            raise ValueError(
                f"{path} is the checkpoint of another network, runner, batch or set of images; "
                "give another file, or remove it"
            )
        self.classes, self.counts = arrays["classes"], arrays["counts"]

    def add(self, classes: np.ndarray, counts: np.ndarray) -> None:
        self.classes, self.counts = np.concatenate([self.classes, classes]), counts
        if self.path is not None:
            arrays = {"classes": self.classes, "counts": self.counts}
            save_arrays(self.path, arrays, metadata={"evaluation": self.fingerprint})


def _fingerprint(network: nn.Module, runner: Runner, x: np.ndarray, batch: int) -> str:
    """Of all that a result depends on."""
    found = hashlib.sha256(np.ascontiguousarray(x).tobytes())
    for name, tensor in network.state_dict().items():
        found.update(name.encode())
        found.update(tensor.numpy().tobytes())
    # threads do not change a result, and others have no fields that could be read
    words = (
        {k: v for k, v in asdict(runner).items() if k != "threads"} if is_dataclass(runner) else ""
    )
    found.update(f"{type(runner).__name__} {words} {batch}".encode())
    return found.hexdigest()


def _evaluation(state: _State, y: np.ndarray) -> Evaluation:
    n = len(y)
    executed, classical = (state.classes[:, k] == y for k in range(2))
    share = float(executed.mean())
    worse, better = int((classical & ~executed).sum()), int((executed & ~classical).sum())
    lost = (worse - better) / n
    half = _NORMAL * math.sqrt(max(worse + better - n * lost**2, 0)) / n
    vectors, circuits, shots, seconds = state.counts
    return Evaluation(
        images=n,
        executed=100 * share,
        classical=100 * float(classical.mean()),
        interval=tuple(100 * bound for bound in _wilson(share, n)),
        lost=100 * lost,
        lost_interval=(100 * (lost - half), 100 * (lost + half)),
        agreement=100 * float((state.classes[:, 0] == state.classes[:, 1]).mean()),
        vectors=int(vectors),
        circuits=int(circuits),
        shots=int(shots),
        seconds=float(seconds),
    )


def _wilson(share: float, n: int) -> tuple[float, float]:
    z2 = _NORMAL**2 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return max(middle - half, 0.0), min(middle + half, 1.0)

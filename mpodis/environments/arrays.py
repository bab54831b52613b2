"""Where engines hold their large arrays: device, precision, threads and memory.

Gates and core are always numpy arrays. The engines call autoray and array methods only on the
large arrays, so that one code path serves numpy and torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from autoray import do

from mpodis.conventions import Array

__all__ = ["DTYPES", "SMALL_BOND", "Backend", "available_memory", "single_threaded"]

DTYPES = ("float32", "float64")
SMALL_BOND = 128
"""Boundary MPOs up to this bond dimension are swept on one thread: matrices this small make
several threads wait for each other."""


class Backend:
    """Moves arrays to and from the device on which an engine computes.

    Parameters
    ----------
    device : str or None
        None computes with numpy; "cpu", "cuda", "cuda:1" ... with torch on that device.
    dtype : {"float64", "float32"}
        Precision; complex arrays become complex128 or complex64.

    Raises
    ------
    ValueError
        An unknown dtype, or a device that torch does not find.
    """

    def __init__(self, device: str | None = None, dtype: str = "float64") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r} is not known; use one of {', '.join(DTYPES)}")
        self.device, self.dtype = device, dtype
        double = dtype == "float64"
        self._kinds = (np.float64, np.complex128) if double else (np.float32, np.complex64)
        self._torch = None if device is None else _torch_on(device)

    def to_device(self, array: np.ndarray) -> Array:
        """A numpy array on the device, in the engine's precision and C order."""
        array = np.asarray(array)
        array = np.ascontiguousarray(array, dtype=self._kinds[array.dtype.kind == "c"])
        if self._torch is None:
            return array
        return self._torch.from_numpy(array).to(self.device)

    def to_numpy(self, array: Array) -> np.ndarray:
        """An array of the device as a numpy array in double precision."""
        array = do("to_numpy", array)
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)


def single_threaded(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """A context in which BLAS uses one thread, if wanted and if threadpoolctl is installed."""
    if not wanted or not importlib.util.find_spec("threadpoolctl"):
        return contextlib.nullcontext()
    return _pools().limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def _pools() -> Any:
    from threadpoolctl import ThreadpoolController  # comes with scikit-learn

    return ThreadpoolController()


def _torch_on(device: str) -> Any:
    """The torch module, once an array was made on the device."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} is not available ({reason}); use device=None, which computes "
            "with numpy"
        ) from None
    return torch


def available_memory() -> float:
    """Bytes that this process can still have, of the machine and of its control group."""
    limits = []
    info = Path("/proc/meminfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
        limits.append(1024.0 * int(fields["MemAvailable"].split()[0]))
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(float(limit) - float((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no such control group here
    return max(min(limits, default=2.0**32), 2.0**20)

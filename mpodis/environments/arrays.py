"""Where an engine's large arrays live: numpy, or torch on a device. Gates and core stay in numpy.

The engines call autoray and array methods only, so that one code path serves both.
"""

from __future__ import annotations

import contextlib
import importlib.util
from functools import lru_cache

import numpy as np
from autoray import do

__all__ = ["DTYPES", "SMALL_BOND", "Home", "single_threaded"]

DTYPES = ("float32", "float64")
SMALL_BOND = 128
"""Boundaries up to this bond dimension are swept on one thread: more threads than that wait for
each other in matrices this small."""


class Home:
    """Moves arrays to and from the place where an engine computes.

    Parameters
    ----------
    device : str or None
        None computes with numpy; "cpu", "cuda", "cuda:1" ... with torch there.
    dtype : {"float64", "float32"}
        Precision; complex arrays become complex128 or complex64.

    Raises
    ------
    ValueError
        An unknown dtype, or a device that torch does not have here.
    """

    def __init__(self, device: str | None = None, dtype: str = "float64") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r} is not known; use one of {', '.join(DTYPES)}")
        self.device, self.dtype = device, dtype
        double = dtype == "float64"
        self._kinds = (np.float64, np.complex128) if double else (np.float32, np.complex64)
        self._torch = None if device is None else _torch_on(device)

    def put(self, array):
        """A numpy array, in the engine's precision and place; C order."""
        array = np.asarray(array)
        array = np.ascontiguousarray(array, dtype=self._kinds[array.dtype.kind == "c"])
        if self._torch is None:
            return array
        return self._torch.from_numpy(array).to(self.device)

    def get(self, array) -> np.ndarray:
        """Back to numpy, in double precision."""
        array = do("to_numpy", array)
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)


def single_threaded(wanted: bool):
    """A context in which BLAS uses one thread, if wanted and threadpoolctl is there to do it."""
    if not wanted or not importlib.util.find_spec("threadpoolctl"):
        return contextlib.nullcontext()
    return _pools().limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def _pools():
    from threadpoolctl import ThreadpoolController  # comes with scikit-learn

    return ThreadpoolController()


def _torch_on(device: str):
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} is not to be had here ({reason}); use device=None, which computes "
            "with numpy"
        ) from None
    return torch

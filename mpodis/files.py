"""Files: atomic writes, JSON, arrays (complex ones too) as safetensors, locks; no pickles."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = [
    "array_metadata",
    "is_locked",
    "load_arrays",
    "locked",
    "read_json",
    "save_arrays",
    "write_atomic",
    "write_json",
]

_COMPLEX = "mpodis.complex"
_LOCK = "lock"
_LOCK_SECONDS = 0.5
_LOCK_FILES: set[IO[str]] = set()
"""How long a lock is waited for: `is_locked` holds it for an instant."""


def write_atomic(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a temporary file beside `path`, flush it to disk, and rename it to `path`."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keep other processes from working in a folder at the same time.

    The operating system releases the lock when the process ends, however it ends; processes that
    it forks do not hold it. File systems without locks give none.

    Raises
    ------
    BlockingIOError
        If another process holds the lock.
    """
    with (Path(folder) / _LOCK).open("a") as file, _closed_in_children(file):
        limit = time.monotonic() + _LOCK_SECONDS
        while not _take_lock(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > limit:
                raise BlockingIOError(
                    f"another process is working in {folder}; follow it with `mpodis watch "
                    f"{folder}`, or choose another directory"
                )
            time.sleep(0.05)
        yield


@contextmanager
def _closed_in_children(file: IO[str]) -> Iterator[None]:
    """Close a file in processes that are forked inside: a lock is held by whoever has it open."""
    _LOCK_FILES.add(file)
    try:
        yield
    finally:
        _LOCK_FILES.discard(file)


def _close_lock_files() -> None:
    while _LOCK_FILES:
        _LOCK_FILES.pop().close()


os.register_at_fork(after_in_child=_close_lock_files)


def is_locked(folder: str | os.PathLike) -> bool:
    """Whether a process works in a folder, see `locked`."""
    try:
        with (Path(folder) / _LOCK).open() as file:
            return not _take_lock(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _take_lock(handle: int, kind: int) -> bool:
    """Whether the lock was free, or there are no locks; closing the file releases it."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as JSON, atomically; NaN and infinities are allowed."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """The value of a JSON file.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may be truncated") from None


def save_arrays(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays as safetensors, atomically, and check that they can be read back.

    Complex arrays, which the format does not have, are stored as real arrays with a last axis of
    2 and listed in the metadata.

    Raises
    ------
    OSError
        If the format has changed an array.
    """
    from safetensors.numpy import load, save

    plain, complex_names = {}, []
    for name, value in arrays.items():
        array: Any = np.asarray(value, order="C")  # the format scrambles strided arrays silently
        if array.dtype.kind == "c":
            complex_names.append(name)
            array = np.stack([np.real(array), np.imag(array)], axis=-1)
        plain[name] = array
    header = {**(metadata or {}), _COMPLEX: json.dumps(complex_names)}
    data = save(plain, metadata=header)
    back = load(data)
    for name, array in plain.items():
        if not np.array_equal(array, back[name], equal_nan=True):
            raise OSError(f"array {name!r} did not survive being written to {path}")
    write_atomic(path, data)


def load_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file, complex arrays as `save_arrays` had them.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is incomplete or of another format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a whole safetensors file ({reason})") from None
    for name in json.loads(metadata.pop(_COMPLEX, "[]")):
        pairs = arrays[name]
        # a view, since x + 1j * y loses signs of zeros, and a part whose other part is infinite
        arrays[name] = pairs.view(np.result_type(pairs, np.complex64))[..., 0]
    return arrays, metadata


def array_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Metadata of a safetensors file without reading its arrays; empty for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}

"""Files with checksums, written atomically: JSON, arrays, histories, locks; no pickles.

What is written here carries a checksum, which is compared when it is read: a bit that has changed
on a disk, or an edit, is an error that names the file. Files without a checksum, of others or of
earlier versions, are read as they are.

    JSON            the last key of an object, "checksum": of the text before it
    safetensors     two entries of the metadata: of the bytes of the arrays, and of the header
    JSON lines      the last key of every line, "check": of the line and all lines before it
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = [
    "append_lines",
    "array_metadata",
    "check_empty",
    "check_format",
    "check_name",
    "is_locked",
    "load_arrays",
    "locked",
    "named_errors",
    "read_json",
    "read_lines",
    "remove_parts",
    "save_arrays",
    "write_atomic",
    "write_json",
]

_COMPLEX = "mpodis.complex"
_BODY, _HEADER = "mpodis.sha256", "mpodis.header-sha256"
"""Entries of the metadata of safetensors files: either one says that there must be both."""
_CHECKSUM, _CHECK = "checksum", "check"
"""Keys of JSON objects, and of the lines of histories."""
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_LOCK = "lock"
_LOCK_SECONDS = 0.5
_LOCK_FILES: set[IO[str]] = set()
"""How long a lock is waited for: `is_locked` holds it for an instant."""


def check_name(path: str | os.PathLike) -> None:
    """Raise a ValueError for a path that is not valid UTF-8, which no report could contain."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name {str(path)!r} is not UTF-8; rename the file or folder"
        ) from None


def check_empty(folder: str | os.PathLike) -> None:
    """Raise a ValueError unless a folder is new or empty."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; choose another folder")


@contextmanager
def named_errors(path: str | os.PathLike) -> Iterator[None]:
    """Give errors of the operating system the name of their file, which those of a read lack."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def write_atomic(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a temporary file beside `path`, flush it to disk, and rename it to `path`."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    whose = f".{path.name}.{os.getpid()}-{_host()}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=whose, suffix=".part")
    try:
        with named_errors(path), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


_PART = re.compile(r".*\.(\d+)-([0-9a-f]{6})\.[^.]*\.part")
"""Name of a temporary file, with the process and the machine that write it."""


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove the temporary files that processes of this machine left when they were killed."""
    for file in Path(folder).rglob(".*.part"):
        named = _PART.fullmatch(file.name)
        if named and named[2] == _host() and not _is_alive(int(named[1])):
            with suppress(OSError):
                file.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def locked(folder: str | os.PathLike, watch: str = "mpodis watch") -> Iterator[None]:
    """Keep other processes from working in a folder at the same time.

    The operating system releases the lock when the process ends, however it ends; processes that
    it forks do not hold it. File systems without locks give none. Meanwhile the file "lock" says
    which process holds it. Temporary files of processes that were killed are removed.

    Parameters
    ----------
    folder : path
    watch : str
        The command that follows what the other process does.

    Raises
    ------
    BlockingIOError
        If another process holds the lock; the error says which, and since when.
    """
    path = Path(folder) / _LOCK
    with path.open("a") as file, _closed_in_children(file):
        limit = time.monotonic() + _LOCK_SECONDS
        while not _take_lock(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > limit:
                raise BlockingIOError(
                    f"another process is working in {folder}{_holder(path)}; follow it with "
                    f"`{watch} {folder}`, or choose another directory"
                )
            time.sleep(0.05)
        with suppress(OSError):  # of a full disk, on which nothing depends here
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
            file.flush()
        remove_parts(folder)
        try:
            yield
        finally:
            with suppress(OSError, ValueError):  # a fork has closed it
                file.truncate(0)


def _holder(path: Path) -> str:
    """Who holds a lock, in brackets; empty where the file does not say."""
    try:
        found = json.loads(path.read_text())
        return f" (process {found['pid']} on {found['host']} since {found['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


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
    """Write a value as JSON, atomically; NaN and infinities are allowed.

    An object (a dict) gets a last key "checksum", which `read_json` compares and takes away.

    Raises
    ------
    ValueError
        If the dict has a key of this name.
    """
    text = json.dumps(value, indent=2, allow_nan=True)
    if isinstance(value, dict):
        if _CHECKSUM in value:
            raise ValueError(f"the key {_CHECKSUM!r} is that of the file's own; use another name")
        comma = "," if value else ""
        text = text.removesuffix("}").rstrip() + comma
        text += f'\n  "{_CHECKSUM}": "{_text_checksum(text)}"\n}}'
    write_atomic(path, text + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """The value of a JSON file, its checksum compared where it has one.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is not JSON, or it has changed since it was written.
    """
    try:
        with named_errors(path):
            text = Path(path).read_text()
        value = json.loads(text)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may be truncated") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be a file of this package") from None
    if not isinstance(value, dict) or not value:
        return value
    last = value[next(reversed(value))]
    # either the key or the value says that there is one, so that damage does not hide it
    if _CHECKSUM in value or (isinstance(last, str) and _SHA256.fullmatch(last)):
        content = text.rpartition("\n  ")[0]
        if text != f'{content}\n  "{_CHECKSUM}": "{_text_checksum(content)}"\n}}\n':
            raise ValueError(_changed(path))
        del value[_CHECKSUM]
    return value


def _text_checksum(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _changed(path: str | os.PathLike) -> str:
    return (
        f"{path} has changed since it was written (its checksum differs): it is damaged, or was "
        "edited; take it from a backup, or delete it and compute it again"
    )


def check_format(path: str | os.PathLike, found: object, known: str, *, what: str) -> None:
    """Raise a ValueError unless what a file says of its format is what this version knows.

    Parameters
    ----------
    path : path
    found : object
        What the file says.
    known : str
        For example "mpodis-mpo-1".
    what : str
        What has this format, for the error: "an MPO".
    """
    if found == known:
        return
    family, _, number = known.rpartition("-")
    named, _, other = str(found).rpartition("-")
    if named != family or not other.isdecimal():
        raise ValueError(f"{path} does not hold {what}")
    if int(other) > int(number):
        raise ValueError(
            f"{path} was written by a newer version of mpodis ({found}; this one knows {known}); "
            "update mpodis"
        )
    raise ValueError(
        f"{path} has an earlier file format ({found}), which cannot be continued; use the version "
        "of mpodis that wrote it, or run it again in another place"
    )


def append_lines(path: str | os.PathLike, records: Iterable[dict], previous: str = "") -> str:
    """Append records to a history, one JSON object a line, and flush them to disk.

    Parameters
    ----------
    path : path
    records : iterable of dict
        None of them empty, and without a key "check".
    previous : str
        The checksum of the line before, as it was returned; for the first line any text that
        says what the history belongs to, which `read_lines` must be given again.

    Returns
    -------
    str
        The checksum of the last line: it depends on all lines before it.

    Examples
    --------
    >>> file = Path(tempfile.mkdtemp()) / "history.jsonl"
    >>> last = append_lines(file, [{"sweep": 0, "loss": 0.5}, {"sweep": 1, "loss": 0.25}])
    >>> last = append_lines(file, [{"sweep": 2, "loss": 0.125}], last)
    >>> [record["loss"] for record in read_lines(file)[0]]
    [0.5, 0.25, 0.125]
    """
    lines = []
    for record in records:
        text = json.dumps(record)[:-1]
        previous = _line_check(previous, text)
        lines.append(f'{text}, "{_CHECK}": "{previous}"}}\n')
    with named_errors(path), Path(path).open("a") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    return previous


def read_lines(
    path: str | os.PathLike, count: int | None = None, previous: str = ""
) -> tuple[list[dict], str]:
    """The first records of a history, and the checksum of the last one of them.

    Parameters
    ----------
    path : path
    count : int, optional
        How many; by default all. Later lines, perhaps half written, are not looked at.
    previous : str
        As `append_lines` was given it for the first line.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it has fewer lines, or one of them is damaged, is missing, or
        belongs to another history.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")[:-1][:count]
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    if count is not None and len(lines) < count:
        raise ValueError(f"{path} has {len(lines)} lines, but {count} were written")
    records = []
    for number, line in enumerate(lines, 1):
        text = line[: -len(f', "{_CHECK}": ""}}') - _LINE_CHECK]
        try:
            previous = _line_check(previous, text.decode())
            if line != text + f', "{_CHECK}": "{previous}"}}'.encode():
                raise ValueError
            records.append(json.loads(text + b"}"))
        except ValueError:  # of json and of decoding as well
            raise ValueError(
                f"line {number} of {path} is damaged, or belongs to another history; take the "
                "file from a backup, or go back to a state before this line"
            ) from None
    return records, previous


_LINE_CHECK = 16
"""Hexadecimal digits of the checksum of a line."""


def _line_check(previous: str, text: str) -> str:
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()[:_LINE_CHECK]


def save_arrays(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays as safetensors with checksums, atomically, and check that they read back.

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
    data = _sealed(save(plain, metadata=header))
    back = load(data)
    for name, array in plain.items():
        if not np.array_equal(array, back[name], equal_nan=True):
            raise OSError(f"array {name!r} did not survive being written to {path}")
    write_atomic(path, data)


def _sealed(data: bytes) -> bytes:
    """A safetensors file with checksums of its body and its header in the metadata."""
    begin = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    header = json.loads(data[_LENGTH:begin])
    metadata = dict(sorted(header[_METADATA].items()))  # their order is that of a random hash
    header[_METADATA] = metadata
    metadata[_BODY] = hashlib.sha256(memoryview(data)[begin:]).hexdigest()
    metadata[_HEADER] = _header_checksum(header)
    text = _header_text(header)
    return len(text).to_bytes(_LENGTH, "little") + text + data[begin:]


_LENGTH, _METADATA = 8, "__metadata__"
"""Bytes of the length of the header of a safetensors file, and the key of its metadata."""


def _header_text(header: dict) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _LENGTH)  # the arrays stay aligned


def _header_checksum(header: dict) -> str:
    """Of the metadata, and of the names, types, shapes and places of the arrays."""
    metadata = {key: x for key, x in header.get(_METADATA, {}).items() if key != _HEADER}
    return hashlib.sha256(_header_text(header | {_METADATA: metadata})).hexdigest()


def _metadata(path: Path, header: bytes) -> dict[str, str]:
    """The metadata in the header of a safetensors file, if its checksum is right."""
    found = json.loads(header)
    metadata = found.get(_METADATA, {})
    if not all("data_offsets" in array for key, array in found.items() if key != _METADATA):
        raise json.JSONDecodeError("its header is not one of arrays", "", 0)
    if _BODY in metadata or _HEADER in metadata:
        metadata.setdefault(_BODY, "")
        metadata[_HEADER] = _header_checksum(found)
        if header != _header_text(found):
            raise ValueError(_changed(path))
    return metadata


def _body_length(header: bytes) -> int:
    """Bytes of the arrays that a header names."""
    arrays = (array for key, array in json.loads(header).items() if key != _METADATA)
    return max((array["data_offsets"][1] for array in arrays), default=0)


def load_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file, complex arrays as `save_arrays` had them.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is incomplete or of another format, or it has changed since
        it was written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with named_errors(path):
        data = path.read_bytes()  # once: a process that writes may replace the file
    try:
        arrays = load(data)
    except (SafetensorError, TypeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a whole safetensors file ({reason})") from None
    begin = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    metadata = _metadata(path, data[_LENGTH:begin])
    metadata.pop(_HEADER, None)
    checksum = metadata.pop(_BODY, None)
    if checksum and checksum != hashlib.sha256(memoryview(data)[begin:]).hexdigest():
        raise ValueError(_changed(path))
    for name in json.loads(metadata.pop(_COMPLEX, "[]")):
        pairs = arrays[name]
        # a view, since x + 1j * y loses signs of zeros, and a part whose other part is infinite
        arrays[name] = pairs.view(np.result_type(pairs, np.complex64))[..., 0]
    return arrays, metadata


def array_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Metadata of a safetensors file without reading its arrays; empty for any other file.

    The checksum of the header is compared, which holds that of the arrays, and the length of the
    file; the content of the arrays is not.

    Raises
    ------
    ValueError
        If the header or the length has changed since it was written, or the name ends in
        .safetensors and the file has no such header.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            size = os.fstat(file.fileno()).st_size - _LENGTH
            if length > min(_LONGEST_HEADER, size):
                raise json.JSONDecodeError("its header is not whole", "", 0)
            header = file.read(length)
            metadata = _metadata(path, header)
            if size - length != _body_length(header):
                raise json.JSONDecodeError("its arrays are not whole", "", 0)
    except OSError:
        return {}
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        AttributeError,
        LookupError,
        TypeError,
        RecursionError,
    ):
        if path.suffix == ".safetensors":
            raise ValueError(f"{path} is not a whole safetensors file; it is damaged") from None
        return {}
    return {key: x for key, x in metadata.items() if key not in (_BODY, _HEADER, _COMPLEX)}


_LONGEST_HEADER = 10**8
"""Bytes; as the format says."""

"""A long computation as a directory of finished pieces, so that it can be interrupted at any time.

    config.json        the kind of computation and its identity: all that its results depend on
    NAME.safetensors   one piece: its arrays, and its notes as JSON in the header

A piece is written atomically when it is finished. A computation that is called again with the
same identity loads the pieces that are there and computes the others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.files import load_arrays, read_json, save_arrays, write_json

__all__ = ["PieceStore"]


class PieceStore:
    """The finished pieces of one computation.

    Parameters
    ----------
    path : Path
        A directory, created where there is none.
    identity : dict
        Everything that the results depend on, as JSON: options, and hashes of arrays.
    kind : str
        The name of the computation, for example "pareto".

    Raises
    ------
    ValueError
        If the path is a file, or a directory that holds another computation; the error names
        what differs.

    Examples
    --------
    >>> import tempfile
    >>> store = PieceStore(Path(tempfile.mkdtemp()), {"seed": 3}, kind="example")
    >>> store.save("first", {"x": np.arange(3.0)}, {"loss": 0.25})
    >>> store.load("first")
    ({'x': array([0., 1., 2.])}, {'loss': 0.25})
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, kind: str) -> None:
        self.path = path
        # as it will be read back: tuples are lists in JSON
        wanted = json.loads(json.dumps({"kind": kind, "identity": identity}))
        self._fingerprint = hashlib.sha256(_canonical(wanted).encode()).hexdigest()
        if path.is_file():
            raise ValueError(f"{path} is a file, but results are kept in a directory; give another")
        config = path / "config.json"
        if config.exists():
            self._compare(read_json(config), wanted)
            return
        orphans = sorted(file.name for file in path.glob("*.safetensors"))
        if orphans:
            raise ValueError(
                f"{path} has a {orphans[0]} but no config.json that says what it belongs to; "
                "choose another directory, or delete this one"
            )
        path.mkdir(parents=True, exist_ok=True)
        write_json(config, wanted)

    def _compare(self, found: Any, wanted: dict[str, Any]) -> None:
        """Raise a ValueError unless the directory holds the computation that is wanted."""
        if not isinstance(found, dict) or found.get("kind") != wanted["kind"]:
            kind = found.get("kind") if isinstance(found, dict) else None
            raise ValueError(
                f"{self.path} holds {f'a run of {kind}' if kind else 'a run of another kind'}, "
                f"not of {wanted['kind']}; choose another directory"
            )
        there, here = found["identity"], wanted["identity"]
        differ = [
            name
            for name in sorted(there.keys() | here.keys())
            if name not in there
            or name not in here
            or _canonical(there[name]) != _canonical(here[name])
        ]
        if differ:
            raise ValueError(
                f"{self.path} holds another run of {wanted['kind']}: {', '.join(differ)} "
                f"{'differs' if len(differ) == 1 else 'differ'}; choose another directory, or "
                "delete this one"
            )

    def __contains__(self, name: str) -> bool:
        """Whether the piece is finished."""
        return self._file(name).is_file()

    def load(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and notes of a piece, or None if it is not finished.

        Raises
        ------
        ValueError
            If its file is damaged, or belongs to another computation.
        """
        file = self._file(name)
        if not file.is_file():
            return None
        arrays, header = load_arrays(file)
        if header.get("run") != self._fingerprint:
            raise ValueError(
                f"{file} does not belong to this run; delete it, and it is computed again"
            )
        return arrays, json.loads(header["notes"])

    def save(self, name: str, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
        """Write a finished piece, in place of an older one of its name."""
        header = {"run": self._fingerprint, "notes": json.dumps(notes)}
        save_arrays(self._file(name), arrays, metadata=header)

    def _file(self, name: str) -> Path:
        if not name or name.startswith(".") or Path(name).name != name:
            raise ValueError(f"the name of a piece, {name!r}, must be a plain file name")
        return self.path / f"{name}.safetensors"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

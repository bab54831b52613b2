"""`mpodis export`: the circuits of a run, or of one factorization, as files."""

from __future__ import annotations

import shlex
from pathlib import Path

from mpodis.compile_runs import is_compile_run
from mpodis.compiling import Compiled, load_run
from mpodis.factorization import holds_factorization, load_factorization
from mpodis.files import check_empty
from mpodis.jobs.directory import JobDirectory
from mpodis.quantum import ExportedCircuits, export_circuits
from mpodis.store import SearchProgress

__all__ = ["export_run"]


def export_run(source: Path, folder: Path, *, format: str = "qasm3") -> list[ExportedCircuits]:
    """Export a factorization's file, or a run of `disentangle` or the compiler, into `folder`.

    All factorizations of a command's run are exported into folders in it.

    The folders are named as the files in the run: ``folder/seed0/depth4-overlap``.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or the directory is not that of a run.
    ValueError
        If it holds no factorization, the folder is not empty, or the format is not known.
    """
    if not source.is_dir():
        return [export_circuits(load_factorization(source), folder, format=format)]
    if SearchProgress.read(source) is not None or is_compile_run(source):  # of a call in Python
        found = load_run(source)
        circuits = found.circuit if isinstance(found, Compiled) else found.factorization
        return [export_circuits(circuits, folder, format=format)]
    run, job, _ = JobDirectory.open(source)
    files = [f for f in sorted(run.path.rglob("*.safetensors")) if holds_factorization(f)]
    if not files and not run.has_ended:
        searches = [
            f.parent for f in run.path.rglob("config.json") if SearchProgress.read(f.parent)
        ]
        best = f", or export the best so far of {searches[0]}" if searches else ""
        command = f"mpodis resume {shlex.quote(str(source))}"
        raise ValueError(f"{source} has no result yet; go on with `{command}`{best}")
    if not files:
        raise ValueError(
            f"{source}, a run of `mpodis {job}`, holds no factorization; give the file that "
            "`Factorization.save` wrote"
        )
    check_empty(folder)
    return [
        export_circuits(
            run.load_factorization(file),
            folder / file.relative_to(run.path).with_suffix(""),
            format=format,
        )
        for file in files
    ]

"""`mpodis study run|status|table|plot|watch|export`: studies from the command line."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mpodis.study.results import StudyResults

__all__ = ["Interrupted", "app"]

STOPPED = 1
"""Exit status of `watch` on a study that nobody works on and that has cases left."""

app = typer.Typer(
    no_args_is_help=True,
    help="Run a function over a grid of settings and seeds, as a TOML file says, and see the "
    "results.\n\nExample: mpodis study run depth.toml",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="TOML file of the study.")]
Place = Annotated[
    Path,
    typer.Argument(metavar="FILE_OR_DIR", help="TOML file of the study, or its directory."),
]
Dir = Annotated[
    Path | None,
    typer.Option("--dir", help="Directory of the records; by default studies/<name of the file>."),
]


class Interrupted(Exception):
    """Ctrl-C in the midst of a study, which can go on."""

    def __init__(self, file: Path, directory: Path | None) -> None:
        command = ["mpodis", "study", "run", str(file)]
        command += [] if directory is None else ["--dir", str(directory)]
        super().__init__(f"interrupted; what is done is kept, go on with `{shlex.join(command)}`")


@app.command()
def run(
    file: File,
    dir: Dir = None,
    n_jobs: Annotated[
        int, typer.Option(help="Processes on this machine; -1 for one a core.", min=-1)
    ] = -1,
    threads: Annotated[int, typer.Option(help="Threads of every process.", min=1)] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="Scheduler of a Dask cluster to compute on."),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Compute cases again that have failed.")
    ] = False,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="Compute again what was made from other files, or by other code."
        ),
    ] = False,
    resumable: Annotated[
        bool,
        typer.Option("--resumable", help="Let a case that is killed go on where it was."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Compute the cases that have no record yet; print the tables and write the figures.

    The exit status is 1 if a case has failed.

    Example: mpodis study run depth.toml --n-jobs 2
    """
    from mpodis.files import check_name
    from mpodis.study.study import Study

    directory = _directory_of(file, dir)
    for path in (file, directory):
        check_name(path)
    sys.path.append(os.path.dirname(os.path.abspath(file)))  # where functions of the user may lie
    study = Study.from_toml(file)
    given = {"retry": retry, "recompute": recompute, "resumable": resumable}
    try:
        with _client(scheduler) as client:
            print(f"writing to {directory}", flush=True)
            study.run(
                directory,
                n_jobs=1 if client is not None else n_jobs,
                threads=threads,
                client=client,
                progbar=not quiet,
                **given,
            )
    except KeyboardInterrupt:
        raise Interrupted(file, dir) from None
    wrong = _print_tables(study, study.described())
    figures, errors = _write_figures(study, study.described(), directory / "figures")
    print(f"\npage: {directory / 'index.html'}")
    if figures:
        print(f"figures: {', '.join(map(str, figures))}")
    status = study.status()
    if status.failed:
        raise ValueError(
            f"{status.failed} of {status.total} cases failed; see `mpodis study status "
            f"{shlex.quote(str(file if dir is None else dir))}`, and --retry computes them again"
        )
    _raise_first(wrong + errors)


@app.command()
def status(study: Place, dir: Dir = None) -> None:
    """Print how many cases are done, failed and left, and the errors.

    Example: mpodis study status depth.toml
    """
    found = _results(study, dir)
    print(found.status())
    failures = found.failures()
    if failures.rows:
        print(f"\n{failures}")


@app.command()
def table(
    study: Place,
    quantities: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUANTITY", help="Columns; by default those of the file."),
    ] = None,
    dir: Dir = None,
) -> None:
    """Print medians over the seeds, a row for all other settings.

    Example: mpodis study table depth.toml overlap s_avg
    """
    found = _results(study, dir)
    if quantities:
        print(found.table(*quantities))
    else:
        _raise_first(_print_tables(found, found.described()))


@app.command()
def plot(
    study: Place,
    quantities: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUANTITY", help="What is drawn; by default the figures of the file."
        ),
    ] = None,
    x: Annotated[str | None, typer.Option("--x", help="Coordinate of the axis.")] = None,
    hue: Annotated[str | None, typer.Option(help="Coordinate that colours tell apart.")] = None,
    col: Annotated[str | None, typer.Option(help="Coordinate of the columns of panels.")] = None,
    row: Annotated[str | None, typer.Option(help="Coordinate of the rows of panels.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Restrict a coordinate; several values have commas."
        ),
    ] = None,
    spread: Annotated[
        str, typer.Option(help="Of the seeds: quartiles, range or none.")
    ] = "quartiles",
    fit: Annotated[
        str | None, typer.Option(help="power: y = a x^b, or exponential: y = a b^x.")
    ] = None,
    logx: Annotated[bool | None, typer.Option("--logx/--no-logx", help="Logarithmic x.")] = None,
    logy: Annotated[bool | None, typer.Option("--logy/--no-logy", help="Logarithmic y.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Files to write, without ending; by default in DIR/figures.")
    ] = None,
    dir: Dir = None,
) -> None:
    """Draw quantities against a coordinate, as PNG and SVG; or the figures that the file names.

    Example: mpodis study plot depth.toml overlap --x depth --hue max_bond
    """
    from mpodis.files import check_name

    if out is not None:
        check_name(out)
        if not out.name:
            raise ValueError(f"--out {str(out)!r} names no file; give a name without an ending")
    found = _results(study, dir)
    described, folder = found.described(), found.directory
    assert folder is not None
    if not quantities:
        options = (x, hue, col, row, where, fit, logx, logy, out)
        if any(option is not None for option in options) or spread != "quartiles":
            raise ValueError("name a quantity to draw, or leave the options out")
        written, errors = _write_figures(found, described, folder / "figures")
        if not written and not errors:
            raise ValueError(
                "the study names no figures; name a quantity and its axis: `mpodis study plot "
                f"{shlex.quote(str(study))} QUANTITY --x COORDINATE`"
            )
    else:
        from mpodis.study.figures import save_figure

        errors = []
        if x is None:
            names = ", ".join([*described["axes"], "seed"])
            raise ValueError(f"--x is missing; the study varies {names}")
        path = folder / "figures" / f"{'-'.join(quantities)}-{x}" if out is None else out
        given = {"hue": hue, "col": col, "row": row, "fit": fit, "logx": logx, "logy": logy}
        written = save_figure(
            found,
            path,
            quantities,
            x=x,
            where=_assignments(where or []),
            spread=None if spread == "none" else spread,
            **given,
        )
    for file in written:
        print(file)
    _raise_first(errors)


@app.command()
def watch(
    study: Place,
    every: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, for scripts.")] = False,
    dir: Dir = None,
) -> None:
    """Follow a study that another process computes: a table in a terminal, else lines.

    The exit status is 0 if all cases have ended, 1 if some are left and nobody works on them.

    Example: mpodis study watch depth.toml
    """
    from rich.console import Console

    from mpodis.study.live import LiveStudy
    from mpodis.study.watch import follow

    live = LiveStudy(_place(study, dir))
    ended = follow(live, Console(), every=every, once=once, sleep=time.sleep)
    if not ended and not live.is_running:
        print(f"nobody works on {live.directory}; {live.left} of {live.total} cases are left")
        raise typer.Exit(STOPPED)


@app.command()
def export(
    study: Place,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File .nc, .parquet or .csv.")],
    dir: Dir = None,
) -> None:
    """Write all records to one file: netCDF with all arrays, or a table of the numbers.

    Example: mpodis study export depth.toml depth.nc
    """
    from mpodis.files import check_name

    check_name(out)
    print(_results(study, dir).export(out))


# --- what the commands share


def _directory_of(file: Path, given: Path | None) -> Path:
    return Path("studies") / file.stem if given is None else given


def _place(study: Path, given: Path | None) -> Path:
    """The directory that a file or a directory stands for."""
    if study.is_dir():
        if given is not None:
            raise ValueError(f"{study} is a directory already; leave --dir out")
        return study
    if study.suffix != ".toml":
        raise FileNotFoundError(f"there is no directory {study}, and no TOML file is named so")
    directory = _directory_of(study, given)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"there is no directory {directory}; run the study, or give its directory by --dir"
        )
    return directory


def _results(study: Path, given: Path | None) -> StudyResults:
    from mpodis.study.results import load_study

    return load_study(_place(study, given))


@contextlib.contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """A client of a Dask scheduler, if there is an address."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            '--scheduler needs Dask; install it by pip install "mpodis[cluster]"'
        ) from None
    for name in ("distributed", "distributed.client"):  # what it says at length is raised as well
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout="10s")
    except ValueError as error:
        raise ValueError(
            f"--scheduler {address!r} is not an address ({error}); give tcp://HOST:PORT"
        ) from None
    except OSError:
        raise OSError(f"there is no Dask scheduler at {address}") from None
    with client:
        yield client


def _print_tables(study: StudyResults, described: Mapping[str, Any]) -> list[str]:
    """The tables that the file names; returns what is wrong with those that cannot be made."""
    errors = []
    for k, given in enumerate(described["tables"] or [{"quantities": []}], start=1):
        try:
            print(f"\n{study.table(*given['quantities'])}")
        except ValueError as error:
            errors.append(f"table {k}: {error}")
    return errors


def _write_figures(
    study: StudyResults, described: Mapping[str, Any], folder: Path
) -> tuple[list[Path], list[str]]:
    """The figures that the file names: files, and what is wrong with those that cannot be drawn."""
    if not described["figures"]:
        return [], []
    from mpodis.study.figures import save_figure

    written, errors = [], []
    for figure in described["figures"]:
        given = dict(figure)
        name = given.pop("name")
        try:
            written += save_figure(study, folder / name, **given)
        except ValueError as error:
            errors.append(f"figure {name}: {error}")
    return written, errors


def _raise_first(errors: list[str]) -> None:
    """One line is said of what is wrong."""
    if errors:
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ValueError(f"{errors[0]}{more}")


def _assignments(texts: list[str]) -> dict[str, Any]:
    """Names and values of KEY=VALUE; several values have commas."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"--where {text!r} is not of the form KEY=VALUE")
        values = [_literal(part) for part in value.split(",")]
        found[name] = values[0] if len(values) == 1 else values
    return found


def _literal(text: str) -> Any:
    """A number or a truth value, else the text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text, text)

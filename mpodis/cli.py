"""The command line: `mpodis run`, `disentangle`, `pareto`, `reproduce`, `export` and the rest.

Flags of jobs are made from the fields of their options, see `mpodis.options`.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import logging
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpodis import __version__
from mpodis.jobs import JOBS, REPRODUCE, Job, load_job, open_job
from mpodis.options import Config, ReproduceConfig, load_options

if TYPE_CHECKING:
    from mpodis.jobs.directory import JobDirectory

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn linear layers into matrix product operators and disentangle them with circuits.",
)

Out = Annotated[Path | None, typer.Option(help="Run directory; by default runs/<job>-<time>.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with these options.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")]


def main() -> None:
    """Entry point: an error is one line on stderr and a non-zero exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if app(standalone_mode=False) == 130:  # so newer versions of typer report an interrupt
            raise KeyboardInterrupt
    except (typer.Abort, KeyboardInterrupt):
        print("mpodis: interrupted; go on with `mpodis resume RUN`", file=sys.stderr)
        sys.exit(130)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"mpodis: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        # typer's own usage errors carry a message and an exit code; anything else is a bug
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        message = _one_line(describe())
        if message:  # there is none where the help was shown for want of arguments
            print(f"mpodis: {message}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options of all commands."""


# --- flags from options


def _flags(cls: type[Config]) -> list[inspect.Parameter]:
    """A parameter for every option: a switch or a text, None where it is not given."""
    kinds = typing.get_type_hints(cls)
    return [_flag(cls, f, kinds[f.name]) for f in fields(cls)]


def _flag(cls: type[Config], f: Field, kind: Any) -> inspect.Parameter:
    owner = next(c for c in cls.__mro__ if f.name in vars(c).get("__annotations__", {}))
    help, choices = f.metadata["help"], f.metadata["choices"]
    if choices and not f.metadata["registry"]:
        help += f" One of {', '.join(choices)}."
    if f.default not in (None, (), ""):
        help += f" (default {_text(f.default)})"
    given: Any
    if f.name == "file":
        given = typer.Argument(metavar="FILE", help=help, show_default=False)
    else:
        given = typer.Option(
            help=help,
            metavar=None if _is_switch(kind) else _metavar(kind),
            show_default=False,
            rich_help_panel=owner.panel,
        )
    annotation = Annotated[(bool if _is_switch(kind) else str) | None, given]
    return _parameter(f.name, annotation, None)


def _parameter(name: str, annotation: Any, default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _is_switch(kind: Any) -> bool:
    return kind is bool or bool in typing.get_args(kind)


def _metavar(kind: Any) -> str:
    """INT, FLOAT or TEXT, and so on with commas where there may be several."""
    names = {int: "INT", float: "FLOAT"}
    args = typing.get_args(kind)
    name = next((names[k] for k in (kind, *args) if k in names), "TEXT")
    return f"{name},..." if typing.get_origin(kind) is tuple else name


def _text(default: object) -> str:
    """A default as one would write it."""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


SHARED = [
    _parameter("config", ConfigFile, None),
    _parameter("out", Out, None),
    _parameter("quiet", Quiet, False),
]
"""Parameters that every job has beside its options."""


def _command(
    name: str, help: str, parameters: list[inspect.Parameter], call: Callable[..., None]
) -> None:
    """Add a command with parameters that are not written out in the source of a function."""

    def command(**given: Any) -> None:
        call(**given)

    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__dict__["__signature__"] = inspect.Signature(parameters)  # where `inspect` looks
    app.command(name, help=help)(command)


# --- jobs


def _add_job(name: str, cls: type[Config]) -> None:
    """The command of a job in `JOBS`."""

    def call(config: Path | None, out: Path | None, quiet: bool, **flags: Any) -> None:
        options = load_options(cls, config, _given(flags))
        _begin(name, options, options.label, out=out, quiet=quiet)

    _command(name, inspect.getdoc(cls) or "", [*_flags(cls), *SHARED], call)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


for _name, _job in JOBS.items():
    _add_job(_name, _job.options)


def _reproduce(
    name: str | None,
    config: Path | None,
    out: Path | None,
    quiet: bool,
    other: list[str] | None,
    **flags: Any,
) -> None:
    if name is None:
        from mpodis.paper import EXPERIMENTS

        for known, title in EXPERIMENTS.items():
            print(f"{known:14s}{title}")
        return
    cls = load_job(REPRODUCE + name).options
    options = load_options(cls, config, _given(flags) | _assignments(other or []))
    _begin(REPRODUCE + name, options, name, out=out, quiet=quiet)


_command(
    "reproduce",
    "Reproduce a table or figure, of the paper or of our own: record, figure and finding.",
    [
        _parameter(
            "name",
            Annotated[str | None, typer.Argument(help="Experiment; without it, all are listed.")],
            None,
        ),
        *_flags(ReproduceConfig),
        _parameter(
            "other",
            Annotated[
                list[str] | None,
                typer.Option("--set", help="KEY=VALUE, an option of the experiment's own."),
            ],
            None,
        ),
        *SHARED,
    ],
    _reproduce,
)


def _assignments(texts: list[str]) -> dict[str, str]:
    """Names and values of KEY=VALUE."""
    pairs = [text.partition("=") for text in texts]
    for text, (key, equals, _) in zip(texts, pairs, strict=True):
        if not key.strip() or not equals:
            raise ValueError(f"--set {text!r} is not of the form KEY=VALUE")
    return {key.strip(): value.strip() for key, _, value in pairs}


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_FILE", help="A run, or a factorization's file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the circuits; must be empty.")],
    format: Annotated[str, typer.Option(help="qasm3 (OpenQASM 3) or qpy.")] = "qasm3",
) -> None:
    """Write the circuits of a run as OpenQASM 3 or QPY, with their global phase in a JSON file."""
    from mpodis.jobs.export import export_run

    for done in export_run(source, out, format=format):
        print(f"{done}\n")


@app.command()
def show(run_dir: Run) -> None:
    """Print the tables of a finished run."""
    from mpodis.jobs.directory import JobDirectory

    directory, _, _ = JobDirectory.open(run_dir)
    _print_tables(directory)


@app.command()
def resume(run_dir: Run, quiet: Quiet = False) -> None:
    """Go on with a run that was interrupted; what is done is not done again."""

    directory, title, options = open_job(run_dir)
    job = load_job(title)
    prepared = None if directory.has_ended else job.prepare(options)
    _finish(directory, job, options, prepared, quiet=quiet)


def _begin(title: str, options: Config, label: str, *, out: Path | None, quiet: bool) -> None:
    """Check the input of a job, make its directory, and do it."""
    from mpodis.jobs.directory import JobDirectory

    job = load_job(title)
    prepared = job.prepare(options)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{label}-{now}" if out is None else out
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    directory = JobDirectory.create(path, title, options.with_absolute_paths())
    try:
        _finish(directory, job, options, prepared, quiet=quiet)
    except (ValueError, TypeError):
        # wrong input that only the work notices: remove a directory without results
        if not directory.has_begun():
            _remove(path, made)
        raise


def _remove(path: Path, made: list[Path]) -> None:
    """Remove a run directory, and those above it that were made for it."""
    shutil.rmtree(path)
    if path not in made:
        path.mkdir()
    for folder in made[1:]:
        with contextlib.suppress(OSError):  # another run has begun beside this one
            folder.rmdir()


def _finish(
    directory: JobDirectory, job: Job, options: Config, prepared: Any, *, quiet: bool
) -> None:
    """Do what is left of a job, write its report and print its tables."""
    from mpodis.jobs.directory import interrupts_raise
    from mpodis.report import render

    print(f"writing to {directory.path}", flush=True)
    logging.getLogger("mpodis").setLevel(logging.WARNING if quiet else logging.INFO)
    if not directory.has_ended:
        with interrupts_raise():
            job.run(options, prepared, directory, progbar=not quiet)
    page = render(directory.path)
    _print_tables(directory)
    print(f"report: {page}")


def _print_tables(directory: JobDirectory) -> None:
    from mpodis.report import tables, verdict

    results = directory.results()
    for table in tables(results):
        print(f"\n{table}")
    print()
    for sentence in verdict(results):
        print(textwrap.fill(sentence, 100, break_on_hyphens=False))
    print()

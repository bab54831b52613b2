"""The command line: `mpodis run`, `disentangle`, `pareto`, `reproduce`, `export` and the rest.

Flags of jobs are made from the fields of their options, see `mpodis.options`. What the package says
of its arguments (``max_bond=0``) is said here of flags (``--max-bond 0``).
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import inspect
import io
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import time
import traceback
import typing
from collections.abc import Callable, Iterator
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mpodis import __version__
from mpodis.jobs import JOBS, REPRODUCE, Job, load_job, open_job
from mpodis.options import SEARCH, Config, DisentangleConfig, ReproduceConfig, load_options
from mpodis.study import commands as study

if TYPE_CHECKING:
    from mpodis.jobs.directory import JobDirectory
    from mpodis.run_status import RunStatus

__all__ = ["app", "main"]

C = TypeVar("C", bound=Config)

FAILED, MISUSED, OWN_BUG, INTERRUPTED = 1, 2, 70, 130
"""Exit statuses beside 0."""
EPILOG = (
    "Exit status: 0, done; 1, the input does not fit or the work failed; 2, a command or an option "
    "is unknown, or an option does not take the value; 70, an error of mpodis itself; 130, "
    "interrupted. An error is one line on stderr, and one of mpodis itself comes with the lines to "
    "report.\n\nOptions of a command may stand in a TOML file (--config FILE): max_bond = 2 for "
    "--max-bond 2. After `mpodis --install-completion` the shell completes commands, options and "
    "their values."
)

TYPES = {int: "INT", float: "FLOAT", Path: "PATH"}
"""What the help shows for the value of an option; all else is TEXT."""

GO_ON_IN_PYTHON = "go on in Python, by the same call with this directory"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn linear layers into matrix product operators and disentangle them with circuits.",
    epilog=EPILOG,
)

app.add_typer(study.app, name="study")

RunDir = Annotated[
    Path | None,
    typer.Option(help="Directory to write, new or empty; by default runs/<name>-<time>."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with options of this command.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")]


class _Misuse(ValueError):
    """An option does not take the value that was given."""


class _Interrupted(Exception):
    """Ctrl-C in the midst of a run that can go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"interrupted; go on with `mpodis resume {shlex.quote(str(path))}`")


class _AboveTheBar(logging.StreamHandler):
    """Writes lines above a progress bar, not behind it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # without it there is no bar
        above = (
            contextlib.nullcontext() if tqdm is None else tqdm.tqdm.external_write_mode(self.stream)
        )
        with above:
            super().emit(record)


def main() -> None:
    """Entry point: an error is one line on stderr and a non-zero exit status."""
    handler = _AboveTheBar()
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before Python began
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):  # it may not have every character
            stream.reconfigure(errors="backslashreplace")
    try:
        with _signals_end_the_command():
            status = _with_plain_help(typer.main.get_command(app))(standalone_mode=False)
        sys.stdout.flush()
        if status == INTERRUPTED:  # so newer versions of typer report an interrupt
            raise KeyboardInterrupt
        if status:  # of `watch`, on a run that was stopped
            sys.exit(status)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except (_Interrupted, study.Interrupted) as error:
        _fail(str(error), INTERRUPTED)
    except _Misuse as error:
        _fail(_in_flags(str(error)), MISUSED)
    except MemoryError as error:
        _fail(f"there is not enough memory: {error}", FAILED)
    except OSError as error:
        # nobody reads any more, as of `mpodis show RUN | head -1`
        unread = isinstance(error, BrokenPipeError) and not _stdout_is_open()
        _fail("" if unread else _in_flags(_of_system(error)), FAILED)
    except (ValueError, TypeError, ImportError, OverflowError) as error:
        _fail(_in_flags(str(error)), FAILED)
    except Exception as error:
        # typer's own usage errors carry a message and an exit code; anything else is a bug
        describe = getattr(error, "format_message", None)
        if describe is None:
            if "out of memory" in str(error):  # as torch says it of an accelerator
                _fail(f"there is not enough memory: {error}", FAILED)
            traceback.print_exc()
            _fail("this is an error of mpodis; please report this with the lines above", OWN_BUG)
        _fail(describe(), getattr(error, "exit_code", MISUSED))


@contextlib.contextmanager
def _signals_end_the_command() -> Iterator[None]:
    """Let the signal by which schedulers end a process do what Ctrl-C does.

    A shell makes commands that a script starts in the background ignore Ctrl-C. Here it ends them
    as well, since a run can go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # as of a program that was not set in Python
                signal.signal(number, handler)


@contextlib.contextmanager
def _reading(what: object) -> Iterator[None]:
    """What a user's file or directory causes is its fault, and not an error of mpodis."""
    try:
        yield
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply to be read") from None
    except (LookupError, AttributeError, RuntimeError, AssertionError) as error:
        if "out of memory" in str(error):
            raise MemoryError(str(error)) from None
        raise ValueError(
            f"{what} cannot be read ({type(error).__name__}: {error}); it may be damaged, or "
            "written by another version of mpodis"
        ) from None


REMEDIES = {
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOSPC: "make room, or choose another place",
    errno.EDQUOT: "make room, or choose another place",
    errno.EFBIG: "make room, or choose another place",
    errno.EISDIR: "give the name of a file",
    errno.ENOTDIR: "a part of the path is a file; choose another place",
    errno.EEXIST: "it is no directory; choose another name",
    errno.ELOOP: "give the file that is meant",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.ENOENT: "check the path",
}
"""What to do about an error of the operating system, by its number."""


def _of_system(error: OSError) -> str:
    """An error of the operating system as file, reason and remedy; any other as it is."""
    if error.errno is None:
        return str(error)
    remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
    name = "the output" if error.filename is None else os.fsdecode(error.filename)
    return f"{name}: {error.strerror}{remedy}"


def _stdout_is_open() -> bool:
    """Flush stdout; where that fails, drop what was printed and return False."""
    try:
        sys.stdout.flush()
        return True
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def _fail(message: str, status: int) -> typing.NoReturn:
    """Print an error, if there is anything to say, and end."""
    if status == INTERRUPTED and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C does not wait for the end
    _stdout_is_open()
    if message:  # there is none where the help was shown for want of arguments
        print(f"mpodis: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


class _Formatter(logging.Formatter):
    """What is logged, in the words of the command line."""

    def format(self, record: logging.LogRecord) -> str:
        return _in_flags(super().format(record))


def _in_flags(message: str) -> str:
    """A message of the package with flags in place of its arguments."""
    words = [*sys.argv[1:3], "", ""]
    flags = _flags_of(words[0], words[1])
    value = r"'[^']*'|\([^()]*\)|\{[^{}]*\}|[^\s,;:()]+"
    given = re.compile(rf"(?<![\w./-])({'|'.join(flags)})=({value})?")
    message = given.sub(lambda found: _as_flag(flags[found[1]], found[2] or ""), message)
    # names that nothing else in a sentence can mean
    for name in (name for name in flags if "_" in name):
        message = re.sub(rf"(?<![\w./'-]){name}(?![\w./('=-])", flags[name], message)
    return message


@functools.cache
def _flags_of(name: str, sub: str = "") -> dict[str, str]:
    """Flags by the names of arguments; where commands differ, those of the command of a name."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if name == "study":  # the settings of a study are no flags
        own = commands[name].commands
        params = [p for command in own.values() for p in command.params]
        params += own[sub].params if sub in own else []
        return {p.name: p.opts[0] for p in params if p.opts[0].startswith("--")}
    flags = {"objective": "--objectives"}  # disentangle searches by several
    for command in (*commands.values(), *([commands[name]] if name in commands else [])):
        flags |= {p.name: p.opts[0] for p in command.params if p.opts[0].startswith("--")}
    if name != "pareto":
        flags["objective"] = flags["objectives"]
    return flags


def _as_flag(flag: str, value: str) -> str:
    """What one types for ``name=value``."""
    if value == "None":
        return f"no {flag}"
    if value in ("True", "False"):
        return flag if value == "True" else flag.replace("--", "--no-", 1)
    if value.startswith("{"):  # KEY=VALUE, as --where takes it
        value = value.strip("{}").replace(": ", "=")
    value = value.strip("()").replace(", ", ",").rstrip(",").replace("'", "")
    return f"{flag} {shlex.quote(value)}" if value else flag


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands."""


# --- flags from options


def _flags(cls: type[Config]) -> list[inspect.Parameter]:
    """A parameter for every option: a switch or a text, None where it is not given."""
    kinds = typing.get_type_hints(cls)
    flags = [_flag(cls, f, kinds[f.name]) for f in fields(cls)]
    # what says how to search stands below what says of what
    return sorted(flags, key=lambda flag: flag.annotation.__metadata__[0].rich_help_panel == SEARCH)


def _with_plain_help(command: Any) -> Any:
    """A command, and those below it, whose help shows INT and the like, and nothing for flags."""
    for p in (*command.params, command.get_help_option(typer.Context(command))):
        if p.param_type_name == "option" and p.metavar is None:
            p.metavar = "" if p.is_flag else TYPES.get(p.type_descriptor.annotation, "TEXT")
    for sub in getattr(command, "commands", {}).values():
        _with_plain_help(sub)
    return command


def _completions(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Completes the last of several values with commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return complete


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
            autocompletion=_completions(choices) if choices else None,
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
    args = typing.get_args(kind)
    name = next((TYPES[k] for k in (kind, *args) if k in TYPES), "TEXT")
    return f"{name},..." if typing.get_origin(kind) is tuple else name


def _text(default: object) -> str:
    """A default as one would write it."""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


SHARED = [
    _parameter("config", ConfigFile, None),
    _parameter("run_dir", RunDir, None),
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

    def call(config: Path | None, run_dir: Path | None, quiet: bool, **flags: Any) -> None:
        options = _options_of(cls, config, flags)
        _begin(name, options, options.label, run_dir=run_dir, quiet=quiet)

    _command(name, inspect.getdoc(cls) or "", [*_flags(cls), *SHARED], call)


def _options_of(cls: type[C], config: Path | None, flags: dict[str, Any]) -> C:
    """Options of a file and of the flags that were given; a wrong one is a misuse."""
    from mpodis.files import check_name

    with _misuse(), _reading("the options" if config is None else config):
        given = {name: value for name, value in flags.items() if value is not None}
        options = load_options(cls, config, given)
        for f in fields(options):
            if f.metadata.get("path") and (value := getattr(options, f.name)):
                check_name(value)
        return options


@contextlib.contextmanager
def _misuse() -> Iterator[None]:
    """Values that options do not take are misuse of the command."""
    try:
        yield
    except ValueError as error:
        raise _Misuse(str(error)) from None


for _name, _job in JOBS.items():
    _add_job(_name, _job.options)


def _reproduce(
    name: str | None,
    config: Path | None,
    run_dir: Path | None,
    quiet: bool,
    other: list[str] | None,
    **flags: Any,
) -> None:
    if name is None:
        from mpodis.paper import EXPERIMENTS

        for known, title in EXPERIMENTS.items():
            print(f"{known:14s}{title}")
        return
    with _misuse():
        cls, own = load_job(REPRODUCE + name).options, _assignments(other or [])
    options = _options_of(cls, config, flags | own)
    _begin(REPRODUCE + name, options, name, run_dir=run_dir, quiet=quiet)


_command(
    "reproduce",
    "Reproduce a table or figure, of the paper or of our own: record, figure and finding.\n\n"
    "Example: mpodis reproduce fig4 --seeds 3 --set depths=2,4,8 --run-dir fig4",
    [
        _parameter(
            "name",
            Annotated[
                str | None,
                typer.Argument(metavar="NAME", help="Experiment; without it, all are listed."),
            ],
            None,
        ),
        *_flags(ReproduceConfig),
        _parameter(
            "other",
            Annotated[
                list[str] | None,
                typer.Option(
                    "--set", metavar="KEY=VALUE", help="An option of the experiment's own."
                ),
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
    """Write the circuits of a run as OpenQASM 3 or QPY, with their global phase in a JSON file.

    Example: mpodis export RUN --out circuits --format qasm3
    """
    from mpodis.files import check_name
    from mpodis.jobs.export import export_run

    check_name(out)
    with _reading(source):
        for done in export_run(source, out, format=format):
            print(f"{done}\n")


def _estimate(config: Path | None, **flags: Any) -> None:
    options = _options_of(DisentangleConfig, config, flags)
    from mpodis.jobs.estimate import estimate

    with _reading(options.file):
        tables = list(estimate(options))
    for table in tables:
        print(f"{table}\n")


_command(
    "estimate",
    "Tell which engines fit, and how long `mpodis disentangle` with these options takes at most."
    "\n\nExample: mpodis estimate w.npy --depth 8 --max-bond 2",
    [*_flags(DisentangleConfig), SHARED[0]],
    _estimate,
)


@app.command()
def show(run_dir: Run) -> None:
    """Print the results of a run so far, that of a command or of `disentangle` in Python.

    Example: mpodis show RUN
    """
    from mpodis.jobs.directory import JobDirectory
    from mpodis.run_status import RunStatus

    with _reading(run_dir):
        status = RunStatus.of(run_dir)
        if status.kind == "job" and status.has_ended:
            _print_tables(JobDirectory(run_dir))
            return
        for table in status.tables() or ["nothing is finished yet"]:
            print(f"\n{table}")
        print(f"\n{_state(status)}")


@app.command()
def watch(
    run_dir: Run,
    every: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, for scripts.")] = False,
) -> None:
    """Follow a run that another process works on; its checkpoints are five seconds apart.

    The exit status is 0 if the run has ended or goes on, 1 if it was stopped before its end.

    Example: mpodis watch RUN
    """
    if (run_dir / "study.json").is_file():
        study.watch(run_dir, every=every, once=once)
        return
    from mpodis.run_status import RunStatus

    shown: dict[str, str] = {}
    idle = 0
    while True:
        with _reading(run_dir):
            status = RunStatus.of(run_dir)
            # before the lines, which may be newer
            ended, running = status.has_ended, status.is_running
            lines = status.lines()
        for name, line in lines.items():
            if shown.get(name) != line:
                print(f"{datetime.datetime.now():%H:%M:%S}  {line}", flush=True)
        shown = lines
        idle = 0 if running or ended else idle + 1
        # of pieces it is not known whether some are missing
        if ended or once or idle > 1 or (idle and status.kind == "pieces"):
            print(_state(status))
            raise typer.Exit(FAILED if idle and status.kind != "pieces" else 0)
        time.sleep(every)


def _state(status: RunStatus) -> str:
    """A sentence on whether a run goes on."""
    if status.has_ended:
        return f"{status.path} has ended"
    if status.is_running:
        return f"{status.path} is running"
    if status.kind == "pieces":
        return f"{status.path} holds {len(status.pieces)} finished pieces"
    if status.kind == "compile":
        return f"{status.path} was stopped; {GO_ON_IN_PYTHON}"
    return f"{status.path} was stopped; go on with `mpodis resume {shlex.quote(str(status.path))}`"


@app.command()
def resume(
    run_dir: Run,
    max_sweeps: Annotated[
        int | None, typer.Option(min=1, help="New limit of sweeps, those made before included.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, help="New limit in seconds, those spent before included.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was interrupted, that of a command or of `disentangle` in Python.

    What is done is not done again. A run that had ended at a limit goes on if the limit is raised.

    Example: mpodis resume RUN --max-seconds 600
    """
    from mpodis.run_status import RunStatus

    limits = {"max_sweeps": max_sweeps, "max_seconds": max_seconds}
    limits = {name: value for name, value in limits.items() if value is not None}
    with _reading(run_dir):
        status = RunStatus.of(run_dir)
    if status.kind == "search":
        _resume_search(run_dir, limits, quiet=quiet)
        return
    if status.kind == "pieces":
        raise ValueError(f"{run_dir} does not hold the operator; {GO_ON_IN_PYTHON}")
    if status.kind == "compile":
        raise ValueError(f"{run_dir} is a run of the compiler; {GO_ON_IN_PYTHON}")
    with _reading(run_dir):
        directory, title, options = open_job(run_dir)
    if limits:
        if not isinstance(options, DisentangleConfig):
            raise _Misuse(f"{' and '.join(map(_as_option, limits))}: {run_dir} is a run of {title}")
        options = replace(options, **limits)
        with directory.lock():
            directory.reopen(options)
    job = load_job(title)
    with _reading("the input of the run"):
        prepared = None if directory.has_ended else job.prepare(options)
    _finish(directory, job, options, prepared, quiet=quiet)


def _as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _resume_search(run_dir: Path, limits: dict[str, Any], *, quiet: bool) -> None:
    """Go on with a run of `disentangle` in Python, and print its result."""
    from mpodis.disentangling import resume as go_on

    logging.getLogger("mpodis").setLevel(logging.ERROR)  # what to do after Ctrl-C is said below
    found = go_on(run_dir, **limits, progbar=not quiet)
    print(f"\n{found.table()}\n")
    if found.status == "interrupted":
        raise _Interrupted(run_dir)


def _begin(title: str, options: Config, label: str, *, run_dir: Path | None, quiet: bool) -> None:
    """Check the input of a job, make its directory, and do it."""
    from mpodis.files import check_name
    from mpodis.jobs.directory import JobDirectory, check_new

    if run_dir is not None:
        check_name(run_dir)
        check_new(run_dir)
    job = load_job(title)
    with _reading(getattr(options, "file", None) or "the input"):
        prepared = job.prepare(options)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{label}-{now}" if run_dir is None else run_dir
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

    ended = directory.has_ended  # then it may lie where nothing can be written
    with contextlib.nullcontext() if ended else directory.lock():
        print(f"writing to {directory.path}", flush=True)
        logging.getLogger("mpodis").setLevel(logging.WARNING if quiet else logging.INFO)
        if not directory.has_ended:
            try:
                with interrupts_raise():
                    job.run(options, prepared, directory, progbar=not quiet)
            except KeyboardInterrupt:
                raise _Interrupted(directory.path) from None
        try:
            page = render(directory.path)
        except OSError:
            page = directory.path / "report.html"
            if not ended or not page.exists():
                raise
    _print_tables(directory)
    print(f"report: {page}")


def _print_tables(directory: JobDirectory) -> None:
    from mpodis.report import tables, verdict

    results = directory.results()
    for table in tables(results):
        print(f"\n{table}")
    print()
    for sentence in verdict(results):
        print(textwrap.fill(_in_flags(sentence), 100, break_on_hyphens=False))
    print()

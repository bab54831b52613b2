"""The command line: `mpodis run`, `disentangle`, `pareto`, `reproduce`, `export` and the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from mpodis import __version__
from mpodis.options import LayerConfig, MainConfig, ParetoConfig, load_config

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn linear layers into matrix product operators and disentangle them with circuits.",
)

Out = Annotated[Path | None, typer.Option(help="Run directory; default runs/<job>-<time>.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with these options.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


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
        if not hasattr(error, "format_message"):
            raise
        message = _one_line(error.format_message())
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


@app.command()
def run(
    config: ConfigFile = None,
    data: Annotated[str | None, typer.Option(help="digits (embedded) or mnist (8x8).")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder of mnist.npz or idx files.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first network.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Networks, of consecutive seeds.")] = None,
    bond: Annotated[int | None, typer.Option(help="Bond dimension of the MPO layer.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of training; default: the recipe.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Likewise.")] = None,
    max_bond: Annotated[int | None, typer.Option(help="Bond dimension chi' of the core.")] = None,
    depths: Annotated[str | None, typer.Option(help="Layers a side, e.g. 2,4,8.")] = None,
    width: Annotated[int | None, typer.Option(help="Wires of a gate.")] = None,
    group: Annotated[str | None, typer.Option(help="Gates: SO or O.")] = None,
    objectives: Annotated[str | None, typer.Option(help="overlap,activations,sensitivity")] = None,
    init: Annotated[str | None, typer.Option(help="identity, random, grown or auto.")] = None,
    n_init: Annotated[int | None, typer.Option(help="Starts that are tried.")] = None,
    max_sweeps: Annotated[int | None, typer.Option(help="Sweeps a start may take.")] = None,
    tol: Annotated[float | None, typer.Option(help="Relative gain over ten sweeps.")] = None,
    execute: Annotated[int | None, typer.Option(help="Test images run on Aer; -1 all.")] = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Train, compress, disentangle, execute and report: the whole job on a real layer."""
    flags = {
        "data": data,
        "data_dir": data_dir,
        "seed": seed,
        "repeats": repeats,
        "bond": bond,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "max_bond": max_bond,
        "depths": depths,
        "width": width,
        "group": group,
        "objectives": objectives,
        "init": init,
        "n_init": n_init,
        "max_sweeps": max_sweeps,
        "tol": tol,
        "execute": execute,
    }
    options = load_config(MainConfig, config, flags)
    from mpodis.data import load_data

    load_data(options.data, data_dir=options.data_dir)  # before a directory is made
    _begin(out, "run", options, label=options.data, quiet=quiet)


@app.command()
def disentangle(
    file: Annotated[str | None, typer.Argument(help=".npy, .npz, .safetensors, .pt")] = None,
    config: ConfigFile = None,
    layer: Annotated[str | None, typer.Option(help="Name of the matrix in the file.")] = None,
    transpose: Annotated[
        bool | None,
        typer.Option(help="The file holds (outputs, inputs); default: all but NumPy files do."),
    ] = None,
    inputs: Annotated[str | None, typer.Option(help="File (samples, inputs) of inputs.")] = None,
    compress_bond: Annotated[int | None, typer.Option(help="Compress to this bond first.")] = None,
    compress_error: Annotated[
        float | None, typer.Option(help="Compress to this error first.")
    ] = None,
    max_bond: Annotated[int | None, typer.Option(help="Bond dimension chi' of the core.")] = None,
    left: Annotated[str | None, typer.Option(help="Depth or spec, '1b + CNOT + 2b'.")] = None,
    right: Annotated[str | None, typer.Option(help="Default: the mirror image of left.")] = None,
    group: Annotated[str | None, typer.Option(help="Gates: SO, O or U.")] = None,
    objectives: Annotated[str | None, typer.Option(help="overlap,activations")] = None,
    method: Annotated[str | None, typer.Option(help="auto, sweeps or lbfgs.")] = None,
    core: Annotated[str | None, typer.Option(help="update or fixed.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, dense, transverse, tree or boundary.")
    ] = None,
    environment_bond: Annotated[
        str | None, typer.Option(help="Bond dimensions of the boundary engine, e.g. 16,32,64.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="auto, grown, identity, entropic, random.")
    ] = None,
    n_init: Annotated[int | None, typer.Option(help="Starts that are tried.")] = None,
    n_perturbed: Annotated[
        int | None, typer.Option(help="Starts around each depth's best.")
    ] = None,
    max_sweeps: Annotated[int | None, typer.Option(help="Sweeps a start may take.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
    tol: Annotated[float | None, typer.Option(help="Relative gain over ten sweeps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the starts.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that explore starts side by side.")
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Compress and disentangle a matrix of your own."""
    flags = {
        "file": file,
        "layer": layer,
        "transpose": transpose,
        "inputs": inputs,
        "compress_bond": compress_bond,
        "compress_error": compress_error,
        "max_bond": max_bond,
        "left": left,
        "right": right,
        "group": group,
        "objectives": objectives,
        "method": method,
        "core": core,
        "engine": engine,
        "environment_bond": environment_bond,
        "init": init,
        "n_init": n_init,
        "n_perturbed": n_perturbed,
        "max_sweeps": max_sweeps,
        "max_seconds": max_seconds,
        "tol": tol,
        "seed": seed,
        "workers": workers,
    }
    options = load_config(LayerConfig, config, flags)
    from mpodis.jobs.layer import load_problem

    problem = load_problem(options)  # before a directory is made
    label = Path(options.file).stem
    _begin(out, "disentangle", options, label=label, quiet=quiet, problem=problem)


@app.command()
def pareto(
    file: Annotated[str | None, typer.Argument(help=".npy, .npz, .safetensors, .pt")] = None,
    config: ConfigFile = None,
    layer: Annotated[str | None, typer.Option(help="Name of the matrix in the file.")] = None,
    transpose: Annotated[
        bool | None,
        typer.Option(help="The file holds (outputs, inputs); default: all but NumPy files do."),
    ] = None,
    inputs: Annotated[str | None, typer.Option(help="File (samples, inputs) of inputs.")] = None,
    compress_bond: Annotated[int | None, typer.Option(help="Compress to this bond first.")] = None,
    compress_error: Annotated[
        float | None, typer.Option(help="Compress to this error first.")
    ] = None,
    max_bond: Annotated[int | None, typer.Option(help="Bond dimension chi' of the core.")] = None,
    objective: Annotated[str | None, typer.Option(help="overlap or activations.")] = None,
    families: Annotated[
        str | None,
        typer.Option(help="Default all: SO(4),O(4),scaffold,CNOTs alone,pruned,searched."),
    ] = None,
    depths: Annotated[str | None, typer.Option(help="Layers a side, e.g. 1,2,4,8.")] = None,
    max_cnots: Annotated[
        int | None, typer.Option(help="Default: those of the deepest brickwall.")
    ] = None,
    n_init: Annotated[int | None, typer.Option(help="Starts of every brickwall.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Of putting in and taking out.")] = None,
    trials: Annotated[int | None, typer.Option(help="Ways tried from every circuit.")] = None,
    sweeps: Annotated[int | None, typer.Option(help="For the best of them.")] = None,
    beam: Annotated[int | None, typer.Option(help="Of the search for CNOTs alone.")] = None,
    max_sweeps: Annotated[int | None, typer.Option(help="Of every brickwall.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the starts.")] = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Fewest CNOTs for a matrix of your own: the front of overlap against CNOTs."""
    flags = {
        "file": file,
        "layer": layer,
        "transpose": transpose,
        "inputs": inputs,
        "compress_bond": compress_bond,
        "compress_error": compress_error,
        "max_bond": max_bond,
        "objective": objective,
        "families": families,
        "depths": depths,
        "max_cnots": max_cnots,
        "n_init": n_init,
        "rounds": rounds,
        "trials": trials,
        "sweeps": sweeps,
        "beam": beam,
        "max_sweeps": max_sweeps,
        "seed": seed,
    }
    options = load_config(ParetoConfig, config, flags)
    from mpodis.jobs.layer import load_problem

    problem = load_problem(options)  # before a directory is made
    label = Path(options.file).stem
    _begin(out, "pareto", options, label=label, quiet=quiet, problem=problem)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="Experiment; none lists them.")] = None,
    config: ConfigFile = None,
    data: Annotated[str | None, typer.Option(help="digits (embedded) or mnist (8x8).")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder of mnist.npz or idx files.")] = None,
    networks: Annotated[
        str | None, typer.Option(help="Folder where trained networks are kept; default: OUT.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many, consecutive.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes, of one thread each.")] = None,
    other: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, an experiment's own option.")
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Reproduce a table or figure, of the paper or of our own: record, figure and finding."""
    from mpodis.jobs.directory import REPRODUCE
    from mpodis.paper import EXPERIMENTS, load_experiment

    if name is None:
        for known, title in EXPERIMENTS.items():
            print(f"{known:14s}{title}")
        return
    experiment = load_experiment(name)
    flags = {
        "data": data,
        "data_dir": data_dir,
        "networks": networks,
        "seed": seed,
        "seeds": seeds,
        "workers": workers,
    }
    options = load_config(experiment.options, config, flags, _assignments(other or []))
    if experiment.trains:
        from mpodis.data import load_data

        load_data(options.data, data_dir=options.data_dir)  # before a directory is made
    _begin(out, REPRODUCE + name, options, label=name, quiet=quiet)


def _assignments(texts: list[str]) -> dict[str, str]:
    """KEY=VALUE, as often as one likes."""
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
    """Write the circuits of a run as OpenQASM 3 or QPY, their global phase beside them."""
    from mpodis.jobs.export import export_run

    for done in export_run(source, out, format=format):
        print(f"{done}\n")


@app.command()
def show(run_dir: Annotated[Path, typer.Argument(metavar="RUN")]) -> None:
    """Print the tables of a finished run."""
    from mpodis.jobs.directory import JobDirectory

    directory, _, _ = JobDirectory.open(run_dir)
    _print_tables(directory)


@app.command()
def resume(run_dir: Annotated[Path, typer.Argument(metavar="RUN")], quiet: Quiet = False) -> None:
    """Go on with a run that was interrupted; what is done is not done again."""
    from mpodis.jobs.directory import JobDirectory

    directory, job, options = JobDirectory.open(run_dir)
    _finish(directory, job, options, quiet=quiet)


PLACES = ("file", "inputs", "data_dir", "networks")


def _absolute(options):
    """The options with paths that a later `resume` finds from anywhere."""
    given = {name: getattr(options, name, None) for name in PLACES}
    paths = {name: str(Path(value).resolve()) for name, value in given.items() if value}
    return dataclasses.replace(options, **paths)


def _begin(out: Path | None, job: str, options, *, label: str, quiet: bool, problem=None) -> None:
    from mpodis.jobs.directory import JobDirectory

    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{label}-{now}" if out is None else out
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    directory = JobDirectory.create(path, job, _absolute(options))
    try:
        _finish(directory, job, options, quiet=quiet, problem=problem)
    except (ValueError, TypeError):
        # wrong input leaves nothing behind; what has begun stays, to be looked at and resumed
        if not directory.begun():
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


def _finish(directory, job: str, options, *, quiet: bool, problem=None) -> None:
    from mpodis.jobs.directory import REPRODUCE
    from mpodis.report import render

    print(f"writing to {directory.path}", flush=True)
    logging.getLogger("mpodis").setLevel(logging.WARNING if quiet else logging.INFO)
    if not (directory.path / "results.json").exists():
        if job == "run":  # imported one by one: a job needs few of the libraries
            from mpodis.jobs.main import run_main

            run_main(options, directory, progbar=not quiet)
        elif job == "pareto":
            from mpodis.jobs.pareto import run_pareto

            run_pareto(options, directory, progbar=not quiet, problem=problem)
        elif job.startswith(REPRODUCE):
            from mpodis.paper import load_experiment
            from mpodis.paper.running import run_experiment

            experiment = load_experiment(job.removeprefix(REPRODUCE))
            run_experiment(experiment, options, directory, progbar=not quiet)
        else:
            from mpodis.jobs.layer import run_layer

            run_layer(options, directory, progbar=not quiet, problem=problem)
    page = render(directory.path)
    _print_tables(directory)
    print(f"report: {page}")


def _print_tables(directory) -> None:
    from mpodis.report import tables

    for table in tables(directory.results()):
        print(f"\n{table}")
    if "finding" in directory.results():
        print(f"\n{textwrap.fill(directory.results()['finding'], 100)}")
    print()

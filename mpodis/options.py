"""Options of searches and of the command line's jobs, each declared once.

A field holds the default of an option, what it means and which values it takes. Everything else
follows from that: the checks, the keys of a TOML file, and the flags of the command line with their
help (`mpodis.cli`).
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

__all__ = [
    "Config",
    "DisentangleConfig",
    "OperatorConfig",
    "ParetoConfig",
    "ReproduceConfig",
    "RunConfig",
    "SearchOptions",
    "check_most_guesses",
    "is_whole",
    "like",
    "load_options",
    "option",
    "read_options",
    "suggestion",
]

OPERATOR_OBJECTIVES = ("overlap", "activations")
"""Objectives of the jobs that take an operator from a file."""
NETWORK_OBJECTIVES = (*OPERATOR_OBJECTIVES, "sensitivity")
"""Objectives of a layer inside a trained network."""


LARGEST_N_INIT = 10_000
"""Initial guesses, each of which has its place in every checkpoint."""
LARGEST_ROUNDS = 10_000
"""Rounds and searches of `pareto` and `resynthesise`, each of which takes seconds or more."""


def check_most_guesses(n_init: int) -> None:
    """Raise a ValueError for more initial guesses than any search gets through."""
    if n_init > LARGEST_N_INIT:
        raise ValueError(f"n_init={n_init} must be {LARGEST_N_INIT:,} or less")


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    registry: str | None = None,
    internal: tuple[str, ...] = (),
    least: float | None = None,
    most: int | None = None,
    positive: bool = False,
    path: bool = False,
) -> Any:
    """A field of a `Config`.

    Parameters
    ----------
    default : object
        Where it is None, so may be the value.
    help : str
        One sentence for the command line.
    choices : tuple of str
        Values that are allowed; of a tuple, its entries.
    registry : str, optional
        "module:name" of a collection of more values that are allowed, imported by the check only.
    internal : tuple of str
        Values that the package itself sets and nobody gives.
    least : int or float, optional
        Smallest value allowed; an int says that the values are whole numbers.
    most : int, optional
        Largest value allowed.
    positive : bool
        Numbers must be above 0.
    path : bool
        The value is the path of a file or a folder.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "choices": choices,
            "registry": registry,
            "internal": internal,
            "least": least,
            "most": most,
            "positive": positive,
            "path": path,
        },
    )


def like(cls: type[Config], name: str, default: Any, **changes: Any) -> Any:
    """The field `name` of another `Config` with another default, and perhaps another help."""
    (original,) = (f for f in fields(cls) if f.name == name)
    return option(default, **{**original.metadata, **changes})


@dataclass(frozen=True)
class Config:
    """Options that check themselves, as far as `option` says what is allowed.

    Raises
    ------
    ValueError
        If a value is none of those that its field allows.
    """

    panel: ClassVar[str] = "Options"
    """Heading in the help of the command line above the options that the class declares."""

    def __post_init__(self) -> None:
        from mpodis.arguments import is_number, plain_number

        for f in fields(self):
            value = getattr(self, f.name)
            several = isinstance(value, tuple)
            value = tuple(map(plain_number, value)) if several else plain_number(value)
            if isinstance(f.default, float) and type(value) is int and is_number(value):
                value = float(value)  # 0 and 0.0 are one option to a run that is stored
            object.__setattr__(self, f.name, value)  # JSON knows no numbers of numpy
            if not f.metadata or (value is None and f.default is None):
                continue
            if isinstance(value, tuple):
                if not value and f.default != ():
                    raise ValueError(f"{f.name}=() is empty; give at least one value")
                if len(set(value)) < len(value):
                    raise ValueError(f"{f.name}={value} contains duplicates")
            for entry in value if isinstance(value, tuple) else (value,):
                _check(f.name, entry, f.metadata)

    def __init_subclass__(cls) -> None:
        # `dataclass` would make one that lists every default
        cls.__repr__ = Config.__repr__

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.changed().items())
        return f"{type(self).__name__}({given})"

    def _repr_html_(self) -> str:
        from mpodis.tables import Table

        changed = self.changed()
        rows = [(f.name, str(getattr(self, f.name)), str(f.default)) for f in fields(self)]
        first = [row for row in rows if row[0] in changed]
        rest = [row[:2] for row in rows if row[0] not in changed]
        return (
            Table(("option", "value", "default"), first, title=type(self).__name__)._repr_html_()
            + f"<details><summary>{len(rest)} options have their defaults</summary>"
            + Table(("option", "default"), rest)._repr_html_()
            + "</details>"
        )

    def changed(self) -> dict[str, Any]:
        """The options that do not have their default."""
        values = ((f, getattr(self, f.name)) for f in fields(self))
        return {f.name: value for f, value in values if value != f.default}

    @property
    def label(self) -> str:
        """How the name of a run directory begins; a time follows."""
        return "run"

    def to_dict(self) -> dict[str, Any]:
        """All options, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def to_toml(self) -> str:
        """All options that have a value, as `load_options` reads them from a file.

        TOML has no null: an option without a value is left out, as one that was not given.

        >>> print(ReproduceConfig(seeds=3).to_toml(), end="")
        data = "digits"
        seed = 0
        seeds = 3
        n_jobs = 2
        """
        given = {name: value for name, value in self.to_dict().items() if value is not None}
        # JSON's texts, numbers and lists are those of TOML, but for one control character
        lines = (f"{name} = {json.dumps(v, ensure_ascii=False)}\n" for name, v in given.items())
        return "".join(lines).replace("\x7f", "\\u007f")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The options that `to_dict` gave; an unknown name is a ValueError."""
        _check_names(cls, values)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def with_absolute_paths(self) -> Self:
        """The same options, their paths absolute: a job may be resumed from another folder."""
        names = [f.name for f in fields(self) if f.metadata.get("path") and getattr(self, f.name)]
        return replace(self, **{name: str(Path(getattr(self, name)).resolve()) for name in names})


C = TypeVar("C", bound=Config)

SEARCH = "Search"
"""Heading in the help of the command line above the options of a search."""


def _check(name: str, value: Any, allowed: Mapping[str, Any]) -> None:
    """Raise a ValueError unless a value is what the metadata of its field allow."""
    from mpodis.arguments import check_count, check_number, check_positive

    known = dict.fromkeys((*allowed["choices"], *_registered(allowed["registry"])))
    if known and value not in (*known, *allowed["internal"]):
        raise ValueError(f"{name}={value!r} is not known; use one of {', '.join(known)}")
    least, most = allowed["least"], allowed["most"]
    if isinstance(least, int):
        check_count(name, value, least, most)
    elif least is not None:
        check_number(name, value, least, most)
    if allowed["positive"]:
        check_positive(name, value, or_none=True)


def _registered(place: str | None) -> Iterable[str]:
    """Names in the collection that "module:name" says."""
    if place is None:
        return ()
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def is_whole(text: str) -> bool:
    """Whether a text is a whole number, which stands for so many layers, and no circuit spec."""
    return text.strip().lstrip("-").isdigit()


def suggestion(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, or all of them.

    Examples
    --------
    >>> from mpodis.options import suggestion
    >>> suggestion("dept", ["depth", "width"]), suggestion("x", ["depth", "width"])
    ("did you mean 'depth'?", 'use one of depth, width')
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"


def _check_names(cls: type[Config], given: Iterable[str]) -> None:
    known = [f.name for f in fields(cls)]
    for name in given:
        if name not in known:
            raise ValueError(f"unknown option {name!r}; {suggestion(name, sorted(known))}")


def load_options(
    cls: type[C], path: str | os.PathLike | None = None, given: Mapping[str, object] | None = None
) -> C:
    """Options from a TOML file and, over it, from what was given on the command line."""
    values: dict[str, object] = {}
    if path is not None:
        from mpodis.files import named_errors

        try:
            with named_errors(path):
                values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid TOML: {error}") from None
    return read_options(cls, values | dict(given or {}))


def read_options(cls: type[C], given: Mapping[str, object]) -> C:
    """Options from what a person wrote, as texts or as values of TOML.

    Several values are a list, or a text with commas. "none" stands for a number that is left out.

    Raises
    ------
    ValueError
        If a name is not known or a value does not have the type of its option.
    """
    _check_names(cls, given)
    kinds = typing.get_type_hints(cls)
    return cls(**{name: _read(name, value, kinds[name]) for name, value in given.items()})


def _read(name: str, value: object, kind: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    optional = types.NoneType in typing.get_args(kind)
    if optional and value == "none" and str not in typing.get_args(kind):
        return None
    parts = value
    if typing.get_origin(kind) is tuple and not isinstance(value, list):
        parts = [part.strip() for part in str(value).split(",") if part.strip()]
    # as texts, of which True is no number and 1.5 no whole one
    written = [str(part) for part in parts] if isinstance(parts, list) else str(parts)
    try:
        return TypeAdapter(kind).validate_python(written)
    except ValidationError:
        raise ValueError(f"{name}={value!r} must be {_wanted(kind)}") from None


def _wanted(kind: Any) -> str:
    """What an option of a type takes, in words."""
    args = typing.get_args(kind)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    one = next(word for word in (kind, *args) if word in words)
    if typing.get_origin(kind) is tuple:
        return f"{words[one]}, or several with commas"
    return words[one] + (", or none" if types.NoneType in args and one is not str else "")


# --- searches


@dataclass(frozen=True)
class CommonSearchOptions(Config):
    """How to search for circuits and core, whatever is minimised.

    `SearchOptions` and the jobs of the command line that search inherit these fields.
    """

    panel: ClassVar[str] = SEARCH

    max_bond: int = option(1, "Bond dimension chi' of the core.", least=1)
    core: str = option(
        "update",
        "Update the core in every sweep, or keep the truncated MPO as the paper does, or the "
        "identity.",
        choices=("update", "fixed", "identity"),
    )
    method: str = option(
        "auto",
        "Closed-form sweeps until they gain little and then L-BFGS, or one of the two alone.",
        choices=("auto", "sweeps", "lbfgs"),
    )
    engine: str = option(
        "auto",
        "Engine of the environments: dense, transverse, tree or boundary; auto takes the cheapest "
        "exact one that fits, else boundary.",
        choices=("auto",),
        registry="mpodis.environments:ENGINES",
    )
    optimize: str | None = option(
        None,
        "How the tree engine searches its contraction path; hyper takes longer and finds better "
        "ones.",
        choices=("greedy", "hyper"),
        internal=("given",),
    )
    environment_bond: tuple[int, ...] = option(
        (16, 32, 64), "Bond dimensions of the boundary engine, ascending."
    )
    dtype: str = option(
        "float64",
        "Precision of the dense and the boundary engine's large arrays.",
        choices=("float32", "float64"),
    )
    device: str | None = option(
        None, "Torch device of these arrays, such as cuda; by default numpy computes on the CPU."
    )
    memory: float | None = option(
        None,
        "Bytes that an engine may take; by default most of what is available.",
        positive=True,
    )
    init: str = option(
        "auto",
        "Initial guess of the gates; auto begins near the identity, and on up to 8 wires lets "
        "circuits grow as well.",
        choices=("auto", "identity", "random", "entropic", "grown"),
        internal=("given",),
    )
    init_scale: float = option(
        0.05, "Distance of the first initial guess from the identity.", least=0.0, most=1_000_000
    )
    n_init: int = option(
        4, "Initial guesses of which the best is kept.", least=1, most=LARGEST_N_INIT
    )
    n_perturbed: int = option(
        0,
        "Further initial guesses around what was found before, for circuits that grow.",
        least=0,
        most=LARGEST_N_INIT,
    )
    relaxation: float = option(
        0.0, "Over-relaxation of the sweeps, as a fraction of the polar step.", least=0.0
    )
    init_sweeps: int = option(20, "Sweeps after which the best initial guess is chosen.", least=1)
    max_sweeps: int = option(
        200, "Most sweeps of a search; ten L-BFGS iterations count as one.", least=1
    )
    tol: float = option(
        1e-4, "Stop when ten sweeps lower the loss by less than this fraction.", least=0.0
    )
    max_seconds: float | None = option(
        None, "Stop after so many seconds; the result then depends on the machine.", positive=True
    )
    seed: int = option(0, "Seed of the initial guesses.", least=0)

    def __post_init__(self) -> None:
        from mpodis.arguments import plain_number

        bonds = self.environment_bond
        bonds = tuple(bonds) if isinstance(bonds, list | tuple) else (bonds,)
        bonds = tuple(map(plain_number, bonds))
        whole = all(isinstance(d, int) and not isinstance(d, bool) and d >= 1 for d in bonds)
        if not bonds or not whole or list(bonds) != sorted(set(bonds)):
            raise ValueError(
                f"environment_bond={self.environment_bond!r} must be a whole number, 1 or more, "
                "or several in ascending order"
            )
        object.__setattr__(self, "environment_bond", bonds)
        super().__post_init__()

    def search(self, objective: str) -> SearchOptions:
        """These options with an objective."""
        shared = {f.name: getattr(self, f.name) for f in fields(CommonSearchOptions)}
        return SearchOptions(**shared, objective=objective)


@dataclass(frozen=True)
class SearchOptions(CommonSearchOptions):
    """How to disentangle; see `disentangle` for what each option means.

    An objective is known to its registry (`mpodis.objectives`) and not checked here, options that
    do not go together are noticed by the search. A field of this class alone gets no flag on the
    command line: a job there searches for several objectives.

    Examples
    --------
    >>> SearchOptions(max_bond=2, tol=1e-6).to_dict()["max_bond"]
    2
    >>> SearchOptions(n_init=0)
    Traceback (most recent call last):
        ...
    ValueError: n_init=0 must be a whole number, 1 or more
    """

    objective: str = option(
        "overlap",
        "What is minimised: overlap (one minus it) or activations (their error for the inputs).",
    )


# --- jobs


@dataclass(frozen=True)
class RunConfig(CommonSearchOptions):
    """Train a network, disentangle its MPO layer, execute the circuits, and report it all.

    Example: mpodis run --depth 2,4,8 --run-dir digits
    """

    panel: ClassVar[str] = "Job"

    data: str = option(
        "digits", "Images: digits (embedded) or mnist (8x8).", choices=("digits", "mnist")
    )
    data_dir: str | None = option(
        None, "Folder of mnist.npz, or of the four idx files of MNIST.", path=True
    )
    repeats: int = option(1, "Networks, of consecutive seeds.", least=1, most=LARGEST_N_INIT)
    bond: int = option(2, "Bond dimension of the MPO layer.", least=1)
    epochs: int | None = option(
        None, "Epochs of training; by default those of the data's recipe.", least=1
    )
    learning_rate: float | None = option(
        None, "Learning rate of training; by default that of the data's recipe.", positive=True
    )
    depth: tuple[int, ...] = option((2, 4, 8), "Layers on either side.", least=1)
    width: int = option(2, "Wires of a gate.", least=1)
    group: str = option("SO", "Group of the gates; the network is real.", choices=("SO", "O"))
    objectives: tuple[str, ...] = option(
        NETWORK_OBJECTIVES, "Objectives, one search for each.", choices=NETWORK_OBJECTIVES
    )
    execute: int = option(-1, "Test images whose circuits Aer executes; -1 takes all.", least=-1)
    init: str = like(CommonSearchOptions, "init", "identity")
    seed: int = like(
        CommonSearchOptions, "seed", 0, help="Seed of the first network and its searches."
    )

    def search(self, objective: str) -> SearchOptions:
        """Options of the search by an objective; "sensitivity" weighs that of the activations."""
        return super().search("overlap" if objective == "overlap" else "activations")

    @property
    def label(self) -> str:
        return self.data


@dataclass(frozen=True)
class OperatorConfig(Config):
    """An operator in a file, and how it becomes an MPO."""

    panel: ClassVar[str] = "Operator"

    file: str = option(
        "",
        "A matrix as .npy, .npz, .safetensors or .pt, or an MPO or MPS that mpodis.save_mpo wrote.",
        path=True,
    )
    layer: str | None = option(None, "Name of the matrix in the file, where it holds several.")
    transpose: bool | None = option(
        None, "The file holds (outputs, inputs); by default all but NumPy files do."
    )
    inputs: str | None = option(
        None, "File with inputs of the layer, an array (samples, inputs).", path=True
    )
    compress_bond: int | None = option(None, "Compress to this bond dimension first.", least=1)
    compress_error: float | None = option(None, "Compress to this relative error first.", least=0.0)

    def __post_init__(self) -> None:
        if not self.file:
            raise ValueError("no file was given; name a .npy, .npz, .safetensors or .pt file")
        super().__post_init__()
        if self.compress_error is not None and self.compress_error >= 1:
            raise ValueError(f"compress_error={self.compress_error} must be below 1")

    def check_inputs(self, objective: str) -> None:
        """Raise a ValueError if an objective needs inputs and there are none."""
        if objective == "activations" and self.inputs is None:
            raise ValueError(
                "the objective 'activations' needs the layer's inputs; give --inputs FILE with an "
                "array (samples, inputs)"
            )

    @property
    def label(self) -> str:
        return Path(self.file).stem


@dataclass(frozen=True)
class DisentangleConfig(CommonSearchOptions, OperatorConfig):
    """Compress and disentangle an operator of your own: a matrix, an MPO or an MPS.

    Example: mpodis disentangle w.npy --depth 8 --max-bond 2 --run-dir w
    """

    panel: ClassVar[str] = "Circuits"
    DEPTH: ClassVar[int] = 8

    depth: int | None = option(
        None, "Layers of 2-body gates on either side; 8 unless circuits are given.", least=1
    )
    left: str | None = option(None, "Left circuit: a depth, or a spec such as '1b + CNOT + 2b'.")
    right: str | None = option(None, "Right circuit; by default the mirror image of the left one.")
    group: str = option("SO", "Group of the gates.", choices=("SO", "O", "U"))
    objectives: tuple[str, ...] = option(
        ("overlap",), "Objectives, one search for each.", choices=OPERATOR_OBJECTIVES
    )
    n_jobs: int = option(1, "Processes that try initial guesses side by side.", least=1, most=1024)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth is not None and (self.left is not None or self.right is not None):
            raise ValueError(
                f"depth={self.depth} describes both circuits; leave it out where left= or right= "
                "is given"
            )
        for side in ("left", "right"):
            given = getattr(self, side)
            if given is not None and is_whole(given) and int(given) < 1:
                raise ValueError(f"{side}={given} is a number of layers and must be 1 or more")
        for objective in self.objectives:
            self.check_inputs(objective)


@dataclass(frozen=True)
class ParetoConfig(OperatorConfig):
    """Find the fewest CNOTs for an operator of your own: the front of overlap against CNOTs.

    Example: mpodis pareto w.npy --depth 1,2,4 --max-cnots 40
    """

    panel: ClassVar[str] = "Front"

    max_bond: int = like(SearchOptions, "max_bond", 1)
    objective: str = like(SearchOptions, "objective", "overlap", choices=OPERATOR_OBJECTIVES)
    families: tuple[str, ...] = option(
        (),
        "How circuits are found, by default all: SO(4),O(4),scaffold,CNOTs alone,pruned,searched.",
        registry="mpodis.resynthesis:FAMILIES",
    )
    depth: tuple[int, ...] = option((1, 2, 4, 8), "Layers on either side of brickwalls.", least=1)
    max_cnots: int | None = option(
        None, "Most CNOTs; by default those of the deepest brickwall.", least=0
    )
    n_init: int = like(SearchOptions, "n_init", 4, help="Initial guesses of every brickwall.")
    rounds: int = option(
        2, "Rounds of putting CNOTs in and taking them out.", least=1, most=LARGEST_ROUNDS
    )
    trials: int = option(3, "Changes that are tried on every circuit.", least=1)
    sweeps: int = option(8, "Sweeps after the best change of a circuit.", least=1)
    beam: int = option(4, "Circuits that the search for CNOTs alone keeps.", least=1)
    max_sweeps: int = like(SearchOptions, "max_sweeps", 100, help="Most sweeps of every brickwall.")
    seed: int = like(SearchOptions, "seed", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_inputs(self.objective)


@dataclass(frozen=True)
class ReproduceConfig(Config):
    """Options that all experiments of `mpodis.paper` have; each adds its own in a subclass."""

    panel: ClassVar[str] = "Experiment"

    data: str = option(
        "digits",
        "Images: digits (embedded), mnist or cifar10.",
        choices=("digits", "mnist", "cifar10"),
    )
    data_dir: str | None = option(None, "Folder of the data.", path=True)
    networks: str | None = option(
        None,
        "Folder in which trained networks are kept and found again; by default the run directory.",
        path=True,
    )
    seed: int = option(0, "The first seed.", least=0)
    seeds: int = option(10, "How many seeds, consecutive ones.", least=1)
    n_jobs: int = option(2, "Processes, of one thread each.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in fields(ReproduceConfig):  # also where a subclass has given another default
            _check(f.name, getattr(self, f.name), f.metadata)

    @property
    def range(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

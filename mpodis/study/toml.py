"""A study as a TOML file: what `Study` takes, its names as keys.

::

    run = "disentangle"              # one of FUNCTIONS, or "module:name"
    name = "depth"                   # by default the name of the file
    description = "Overlap against depth."
    minutes = 3                      # on two cores
    seeds = 3

    [settings]
    operator = { kind = "random_mpo", max_bond = 4 }

    [grid]
    depth = [2, 4, 8]
    operator.n = [8, 12]             # an entry of the setting "operator"

    [[cases]]                        # settings that belong together
    max_bond = 1
    max_sweeps = 100

    [[figures]]
    quantity = "overlap"
    x = "depth"

    [[tables]]
    quantities = ["overlap", "s_avg"]

The `path` of a target is relative to the file. "none" stands for None, which TOML does not have,
and a list of tables with "label" and "value" for values of the grid that have labels.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.files import named_errors
from mpodis.options import suggestion
from mpodis.study.cases import Labelled

__all__ = ["check_figures", "check_tables", "read", "write"]

PLAIN = ("run", "name", "description", "minutes", "seeds", "code", "neutral")
KEYS = (*PLAIN, "settings", "grid", "cases", "figures", "tables")
FIGURE_KEYS = (
    "name",
    "quantity",
    "x",
    "hue",
    "col",
    "row",
    "where",
    "spread",
    "fit",
    "logx",
    "logy",
)
FIGURE_TYPES: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("quantity", (str, list, tuple), "one name or several"),
    *((name, str, "a text") for name in ("name", "x", "hue", "col", "row", "spread", "fit")),
    ("where", Mapping, "a table, of coordinates and their values"),
    *((name, bool, "true or false") for name in ("logx", "logy")),
)
TABLE_KEYS = ("quantities",)
NONE = "none"
LABELLED = {"label", "value"}


def read(path: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """The function that a file names, and the other arguments of `Study`.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file, it is not TOML, or a key in it is unknown or has a wrong value.
    """
    path = Path(path)
    try:
        with named_errors(path):  # and some editors begin a file with a mark
            found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory; give the TOML file of the study") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    check_keys(found, KEYS, str(path))
    if not isinstance(found.get("run"), str):
        raise ValueError(f'{path} does not say what is run; begin it with run = "disentangle"')
    folder = path.parent
    given: dict[str, Any] = {"name": path.stem}
    for name, kinds, words in (
        ("name", (str,), "a text"),
        ("description", (str,), "a text"),
        ("code", (str,), "a text"),
        ("minutes", (int, float), "a number"),
        ("neutral", (list,), "a list of settings"),
        ("seeds", (int, list), "a number of seeds, or a list of them"),
        ("settings", (dict,), "a table, [settings]"),
        ("grid", (dict,), "a table, [grid]"),
        ("cases", (list,), "tables, [[cases]]"),
        ("figures", (list,), "tables, [[figures]]"),
        ("tables", (list,), "tables, [[tables]]"),
    ):
        if name in found:
            value = found[name]
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{path}: {name}={value!r} must be {words}")
            given[name] = value
    targets = _targets(found)
    if "settings" in given:
        given["settings"] = {
            name: _value(name, value, folder, targets) for name, value in given["settings"].items()
        }
    if "grid" in given:
        grid = _flat(given["grid"], whole=False)  # an axis is a list, and no target itself
        given["grid"] = {name: _axis(name, v, folder, targets) for name, v in grid.items()}
    if "cases" in given:
        given["cases"] = [
            {name: _labelled(name, v, folder, targets) for name, v in _flat(_table(case)).items()}
            for case in given["cases"]
        ]
    return found["run"], given


def check_keys(given: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raise a ValueError that names an unknown key, and the nearest known one."""
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: unknown key {name!r}; {suggestion(name, known)}")


def check_figures(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures of a study, each with its arguments of `plot_study` and a name for its files.

    Raises
    ------
    ValueError
        If one has an unknown key, lacks its quantity or x, or has the name of another.
    """
    found: list[dict[str, Any]] = []
    for k, figure in enumerate(given, start=1):
        where = f"figure {k}"
        check_keys(_table(figure), FIGURE_KEYS, where)
        for name in ("quantity", "x"):
            if name not in figure:
                raise ValueError(f"{where} has no {name}; say what is drawn against what")
        for name, kinds, words in FIGURE_TYPES:
            if figure.get(name) is not None and not isinstance(figure[name], kinds):
                raise ValueError(f"{where}: {name} is {figure[name]!r}, and must be {words}")
        quantities = figure["quantity"]
        quantities = [quantities] if isinstance(quantities, str) else list(quantities)
        if not quantities or not all(isinstance(name, str) for name in quantities):
            raise ValueError(
                f"{where}: quantity={figure['quantity']!r} must be one name or several"
            )
        default = f"{'-'.join(quantities)}-{figure['x']}"
        whole = {"name": default, **figure}
        if not re.fullmatch(r"[\w+-][\w.+-]*", whole["name"]):
            raise ValueError(
                f"{where}: name={whole['name']!r} becomes the name of a file; use letters, digits, "
                "'-', '_', '+' and '.'"
            )
        if any(whole["name"] == other["name"] for other in found):
            raise ValueError(f"two figures have the name {whole['name']!r}; give one another name")
        found.append(whole)
    return found


def check_tables(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tables of a study, each with the quantities in it."""
    for k, table in enumerate(given, start=1):
        check_keys(_table(table), TABLE_KEYS, f"table {k}")
        names = table.get("quantities")
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"table {k} needs quantities, a list of names")
    return [dict(table) for table in given]


# --- from TOML


def _table(given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{given!r} must be a table")
    return given


def _targets(found: Mapping[str, Any]) -> set[str]:
    """Settings that are the description of a target, wherever its kind stands."""
    tables = [found.get("settings", {}), found.get("grid", {}), *found.get("cases", [])]
    names = [name for table in tables for name in _flat(_table(table), whole=False)]
    return {name.rpartition(".")[0] for name in names if name.endswith(".kind")}


def _flat(given: Mapping[str, Any], before: str = "", *, whole: bool = True) -> dict[str, Any]:
    """Tables in tables as names with dots; `whole` leaves descriptions of targets as they are."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping) and not (whole and "kind" in value):
            found |= _flat(value, f"{before}{name}.", whole=whole)
        else:
            found[f"{before}{name}"] = value
    return found


def _value(name: str, value: Any, folder: Path, targets: set[str]) -> Any:
    """A value of a file as Python has it: None, and paths of targets from here."""
    if isinstance(value, Mapping):
        ours = targets | {name} if "kind" in value else targets
        return {part: _value(f"{name}.{part}", v, folder, ours) for part, v in value.items()}
    if isinstance(value, list):
        return [_value(name, entry, folder, targets) for entry in value]
    if isinstance(value, str) and _is_path(name, targets):
        return os.path.normpath(folder / value)
    return None if value == NONE else value


def _is_path(name: str, targets: set[str]) -> bool:
    whole, _, last = name.rpartition(".")
    return last == "path" and whole in targets


def _labelled(name: str, value: Any, folder: Path, targets: set[str]) -> Any:
    """A value that is shown; a path as it is written, which is the same on every machine."""
    found = _value(name, value, folder, targets)
    return Labelled(value, found) if _is_path(name, targets) else found


def _axis(name: str, values: Any, folder: Path, targets: set[str]) -> Any:
    """Values of an axis."""
    if not isinstance(values, list):
        raise ValueError(f"the grid has {name}={values!r}, which is not several values; use a list")
    labelled = [isinstance(v, Mapping) and set(v) == LABELLED for v in values]
    if any(labelled) and not all(labelled):
        other = values[labelled.index(False)]
        raise ValueError(
            f"the grid has {name}={other!r} among values with labels; give every one of them as "
            "{ label = .., value = .. }"
        )
    if any(labelled):
        labels = [str(v["label"]) for v in values]
        twice = next((v for k, v in enumerate(labels) if v in labels[:k]), None)
        if twice is not None:
            raise ValueError(f"the grid has the label {twice!r} of {name} twice")
        return {str(v["label"]): _value(name, v["value"], folder, targets) for v in values}
    return [_labelled(name, value, folder, targets) for value in values]


# --- to TOML


def write(given: Mapping[str, Any], path: str | os.PathLike | None = None) -> str:
    """The text of a file with the arguments of `Study`, "run" among them.

    The `path` of a target becomes relative to the folder of the file.

    Raises
    ------
    ValueError
        If a value is one that a file cannot hold, as an array.
    """
    folder = None if path is None else Path(path).resolve().parent
    lines = [
        f"{name} = {_text(given[name], name, folder)}"
        for name in PLAIN
        if given.get(name) not in (None, "", ())
    ]
    for name in ("settings", "grid"):
        if given.get(name):
            lines += ["", f"[{name}]"]
            lines += [f"{_key(key)} = {_text(v, key, folder)}" for key, v in given[name].items()]
    for name in ("cases", "figures", "tables"):
        for table in given.get(name, ()):
            lines += ["", f"[[{name}]]"]
            lines += [f"{_key(key)} = {_text(v, key, folder)}" for key, v in table.items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _string(name)


def _string(text: str) -> str:
    # JSON's texts are those of TOML, but for one control character
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _text(value: Any, name: str, folder: Path | None) -> str:
    """A value in TOML; `name` is its setting, for paths and errors."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return _string(NONE)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        if value == NONE:
            raise ValueError(f"{name}={NONE!r} would be read as None from a file; use another text")
        if name.rpartition(".")[2] == "path" and folder is not None:
            value = os.path.relpath(Path(value).resolve(), folder)
        return _string(value)
    if isinstance(value, Labelled):
        if name.rpartition(".")[2] == "path":  # which is its own label
            return _text(value.value, name, folder)
        return _text({"label": value.label, "value": value.value}, name, folder)
    if isinstance(value, Mapping):
        parts = [f"{_key(str(k))} = {_text(v, str(k), folder)}" for k, v in value.items()]
        return f"{{ {', '.join(parts)} }}" if parts else "{}"
    if isinstance(value, list | tuple | range):
        return f"[{', '.join(_text(entry, name, folder) for entry in value)}]"
    raise ValueError(
        f"{name} is a {type(value).__name__}, which a file cannot hold; describe it as a target "
        "(mpodis.targets), or write it to a file and name that"
    )

"""README and the pages in notebooks/: what they mention exists, and the code in them runs.

Code is executed with the wheel, not with the files of the repository, in an empty folder.
"""

import ast
import importlib
import inspect
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pages import blocks, same_output

pytestmark = pytest.mark.no_cover  # of texts, and of code in other processes
ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "notebooks").rglob("*.md"))]
PUBLIC = ("mpodis", "mpodis.data", "mpodis.environments", "mpodis.nn", "mpodis.plots")
PUBLIC += ("mpodis.quantum", "mpodis.structured", "mpodis.study", "mpodis.targets")
PLACEHOLDERS = {"DIR": ".", "RUN": ".", "FILE": "w.npy"}
"""What stands in the commands of pages for something of the reader's."""


def outside_blocks(page):
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def name(page):
    return str(page.relative_to(ROOT)).removeprefix("notebooks/")


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


def missing_files(page):
    """Files and folders that a page links to or names, but that are not there."""
    text = outside_blocks(page)
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    names = re.findall(r"`((?:mpodis|tests|scripts|notebooks|\.ci)/[\w./-]*)`", text)
    return [link for link in links if not (page.parent / link).exists()] + [
        file for file in names if not (ROOT / file).exists()
    ]


def missing_names(text):
    """Dotted names of mpodis in a text that cannot be imported."""
    found = []
    for dotted in sorted(set(re.findall(r"\bmpodis(?:\.[A-Za-z_]\w*)+", text))):
        parts = dotted.split(".")
        try:
            here = importlib.import_module("mpodis")
            for k, part in enumerate(parts[1:], start=1):
                try:
                    here = getattr(here, part)
                except AttributeError:
                    here = importlib.import_module(".".join(parts[: k + 1]))
        except ImportError:
            found.append(dotted)
    return found


@every_page
def test_files_exist(page):
    assert not missing_files(page)


@every_page
def test_names_exist(page):
    assert not missing_names(page.read_text())


@every_page
def test_code_stands_in_blocks_of_a_known_kind(page):
    lines = r"^ {4,}(?:mpodis|\./|pip|python|import|from|source) .*$"
    assert not re.findall(lines, outside_blocks(page), re.MULTILINE)
    assert {block.language for block in blocks(page)} <= {"bash", "python", "text", "toml"}


# --- code that is executed


@pytest.fixture(scope="module")
def executed(request, tmp_path_factory):
    """What became of each page that is asked for; the wheel is made and installed for it."""
    folder = tmp_path_factory.mktemp("wheel")
    run = {"check": True, "capture_output": True, "text": True}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, **run)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--target", str(site), str(wheel)], **run)
    environment = os.environ | {"PYTHONPATH": str(site), "MPLBACKEND": "Agg"}
    environment["PATH"] = os.pathsep.join(
        [str(site / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    pages = [
        str(item.callspec.params["page"])
        for item in request.session.items
        if item.path == Path(__file__) and item.originalname == "test_code_runs"
    ]
    script, report = Path(__file__).with_name("pages.py"), folder / "report.json"
    command = [sys.executable, "-P", str(script), str(report), *pages]
    subprocess.run(command, cwd=folder, env=environment, **run)
    found = json.loads(report.read_text())
    assert Path(found["package"]).is_relative_to(site), "not the package of the wheel"
    return found["pages"]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.executed for block in blocks(page))], ids=name
)
def test_code_runs(page, executed):
    result = executed[str(page)]
    assert not result["error"], result["error"]


# --- code that is not executed, and imports of all


def strange_imports(code):
    """Names that a block imports from mpodis and that are not public."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mpodis"):
            public = importlib.import_module(node.module).__all__
            names = [alias.name for alias in node.names]
            found += [n for n in names if n not in public and f"{node.module}.{n}" not in PUBLIC]
    return found


def unknown_keywords(code):
    """Keywords of calls of public names that these do not take."""
    names, found = {"mpodis": importlib.import_module("mpodis")}, []
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mpodis"):
            module = importlib.import_module(node.module)
            names |= {a.asname or a.name: getattr(module, a.name, None) for a in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        here = names.get(first)
        for name in rest:
            here = getattr(here, name, None)
        if not callable(here):
            continue
        parameters = inspect.signature(here).parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            found += [k.arg for k in node.keywords if k.arg and k.arg not in parameters]
    return found


@every_page
def test_python_parses_imports_public_names_and_gives_options_that_exist(page):
    code = [block.code for block in blocks(page) if block.language == "python"]
    for one in code:
        assert not strange_imports(one)
    assert not unknown_keywords("\n".join(code))


def commands(page):
    """Lines of shell blocks, continuations joined, and commands in backticks within the text."""
    found = []
    for block in blocks(page):
        if block.language == "bash":
            lines = re.sub(r"\\\n\s*", " ", block.code).splitlines()
            found += [words for line in lines if (words := shlex.split(line, comments=True))]
    in_text = r"`((?:mpodis [a-z]|\./scripts/|scripts/bench/)[^`]*)`"
    inline = re.findall(in_text, outside_blocks(page))
    return found + [shlex.split(text) for text in inline]


def complaint(words):
    """What is wrong with a command of ours, None if nothing is."""
    here = next((i for i, word in enumerate(words) if "scripts/" in word), None)
    if here is not None:
        return wrong_script(ROOT / words[here], words[here + 1 :])
    if words[0] == "mpodis" and not words[1].startswith("--"):
        return wrong_command(words[1], [PLACEHOLDERS.get(word, word) for word in words[2:]])
    return None


def wrong_script(script, arguments):
    if not script.exists():
        return f"no file {script}"
    text = script.read_text() if script.suffix == ".py" else ""
    flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    unknown = [flag for flag in flags if text and f'"{flag}"' not in text]
    return f"no option {unknown}" if unknown else None


def wrong_command(name, arguments):
    from mpodis.cli import app
    from mpodis.paper import EXPERIMENTS, load_experiment

    known = typer.main.get_command(app).commands
    if name not in known:
        return f"no command {name}"
    if hasattr(known[name], "commands"):  # a group, as of studies
        if not arguments:
            return None
        known, (name, *arguments) = known[name].commands, arguments
        if name not in known:
            return f"no command {name}"
    try:
        known[name].make_context(name, list(arguments))
    except Exception as error:  # a text may name a command without all that it needs
        if not hasattr(error, "format_message"):
            raise
        return None if type(error).__name__ == "MissingParameter" else error.format_message()
    if name == "reproduce" and arguments and arguments[0] != "NAME":
        if arguments[0] not in EXPERIMENTS:
            return f"no experiment {arguments[0]}"
        fields = load_experiment(arguments[0]).options.__dataclass_fields__
        pairs = itertools.pairwise(arguments)
        settings = [value.partition("=")[0] for flag, value in pairs if flag == "--set"]
        if unknown := [key for key in settings if key not in fields]:
            return f"{arguments[0]} has no setting {unknown}"
    return None


@every_page
def test_commands_and_their_options_exist(page):
    wrong = {shlex.join(words): said for words in commands(page) if (said := complaint(words))}
    assert not wrong


# --- the reference


def names_on(page):
    """What the blocks of names of a page list, as (module, name)."""
    found = re.findall(
        r"^```{names} ([\w.]+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
    )
    return [(module, name) for module, names in found for name in names.split()]


def test_the_reference_has_every_public_name_once():
    listed = [entry for page in PAGES for entry in names_on(page)]
    assert len(listed) == len(set(listed))
    top = importlib.import_module("mpodis").__all__
    for module in PUBLIC:
        names = [n for n in importlib.import_module(module).__all__ if n != "__version__"]
        if module != "mpodis":  # names of mpodis itself stand there only
            names = [n for n in names if n not in top]
        assert sorted(name for where, name in listed if where == module) == sorted(names)


@pytest.mark.parametrize("page", [page for page in PAGES if names_on(page)], ids=name)
def test_every_public_name_has_an_example(page):
    code = "\n".join(block.code for block in blocks(page) if block.executed)
    without = [
        name
        for module, name in names_on(page)
        if ">>>" not in (getattr(importlib.import_module(module), name).__doc__ or "")
        and not re.search(rf"\b{name}s?\b", code)
    ]
    assert not without


# --- the tests themselves


def test_what_is_missing_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("See [here](there.md#part), `mpodis/none.py`, `mpodis/mpo.py`, [it](page.md).")
    assert missing_files(page) == ["there.md", "mpodis/none.py"]
    assert missing_names("`mpodis.compress`, mpodis.nn.none and `mpodis.none()`") == [
        "mpodis.nn.none",
        "mpodis.none",
    ]


def test_an_option_that_does_not_exist_is_found():
    code = "from mpodis import nn, compress as c\nmpodis.disentangle(w, deep=3)\nf(x=1)\n"
    code += "c(w, bond=2, max_bond=3)\nnn.predict(net, x, none=1)"
    assert unknown_keywords(code) == ["deep", "bond", "none"]


def test_blocks_are_told_apart(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1)\n```\n\n```text\n1\n```\n\n"
        "Takes an hour.\n<!-- not run: takes an hour -->\n```bash\nmpodis run\n```\n"
        "- in a list\n  ```python\n  x = 2\n  ```\n"
    )
    first, second, third = blocks(page)
    assert (first.code, first.output, first.line, first.executed) == ("print(1)\n", "1\n", 1, True)
    assert (second.not_run, second.executed) == ("takes an hour", False)
    assert (third.code, third.executed) == ("x = 2\n", True)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("S_avg 0.91, 12.0 s", "S_avg 0.93,  80.0 s\n", True),
        ("S_avg 0.91, 12.0 s", "S_avg 0.31, 12.0 s", False),
        ("S_avg 0.91", "S_max 0.91", False),
        ("one\n...\nfour 4", "one\ntwo 2\nthree\nfour 4", True),
        ("one\n...\nfour 4", "one\ntwo 2\nthree\nfour 5", False),
        ("1,024 shots", "1,000 shots", True),
    ],
)
def test_outputs_are_compared(expected, printed, same):
    assert same_output(expected, printed) == same


@pytest.mark.parametrize(
    "command",
    [
        "mpodis none",
        "mpodis run --no-such 3",
        "mpodis study none",
        "mpodis study run FILE --no-such 3",
        "mpodis reproduce none",
        "mpodis reproduce dense --set no_such=1",
        "python scripts/bench/engines.py --no-such",
        "./scripts/none",
    ],
)
def test_a_wrong_command_is_found(command):
    assert complaint(shlex.split(command))


def test_the_citation_is_of_this_version():
    from mpodis import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()

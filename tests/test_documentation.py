"""README and the pages in notebooks/: what they mention exists, and the code in them runs."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "notebooks").glob("*.md"))]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def missing_files(page):
    """Files and folders that a page links to or names, but that are not there."""
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    names = re.findall(r"`((?:mpodis|tests|scripts|notebooks|\.ci)/[\w./-]*)`", text)
    return [name for name in links if not (page.parent / name).exists()] + [
        name for name in names if not (ROOT / name).exists()
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


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name
)
def test_imports_of_code_blocks_exist(page):
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mpodis"):
                public = importlib.import_module(node.module).__all__
                assert not {alias.name for alias in node.names} - set(public), ast.unparse(node)


def test_commands_and_their_options_exist(mpodis, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    text = re.sub(r"\n(?=\S)", " ", README.read_text())  # a command may go on in the next line
    commands = re.findall(r"(?:\n    |`)mpodis ([a-z]+)\b([^`#\n]*)", text)
    helps = {}
    for name, rest in commands:
        if name not in helps:
            code, out, _ = mpodis(name, "--help")
            assert code == 0, f"README.md has `mpodis {name}`, which is no command"
            helps[name] = out
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
            assert option in helps[name], f"README.md: `mpodis {name}` has no option {option}"


def test_code_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python_blocks(README):
        exec(compile(block, "README.md", "exec"), names)
    assert "fc1" in capsys.readouterr().out


def test_what_is_missing_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("See [here](there.md), `mpodis/none.py`, `mpodis/mpo.py` and [it](page.md).")
    assert missing_files(page) == ["there.md", "mpodis/none.py"]
    assert missing_names("`mpodis.compress`, mpodis.nn.none and `mpodis.none()`") == [
        "mpodis.nn.none",
        "mpodis.none",
    ]


def test_the_citation_is_of_this_version():
    from mpodis import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()

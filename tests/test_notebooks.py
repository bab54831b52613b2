"""The notebooks: committed executed, on public names only, and they run."""

import ast
import importlib
import itertools
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLIC_MODULES = ("mpodis.data", "mpodis.nn", "mpodis.plots", "mpodis.quantum")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# A root folder, a home or a drive; not </td>, 1/2, 8x8/16, https:// or a/b.
ABSOLUTE_PATH = re.compile(r"(?<![\w<:/.~)])(?:/(?=[\w.-]+/)[\w.-]+|~/\w|[A-Za-z]:\\\w|file://)")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def private_names(source):
    """What a cell uses of mpodis that is not public, and names with a leading underscore."""
    tree = ast.parse(source)
    modules, found = {}, []  # what a name in the notebook stands for

    def check(dotted):
        module, _, name = dotted.rpartition(".")
        if dotted not in ("mpodis", *PUBLIC_MODULES) and not (
            module in ("mpodis", *PUBLIC_MODULES)
            and name in importlib.import_module(module).__all__
        ):
            found.append(dotted)

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mpodis":
                    check(alias.name)
                    bound = alias.asname or "mpodis"
                    modules[bound] = alias.name if alias.asname else "mpodis"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mpodis":
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                check(dotted)
                if dotted in PUBLIC_MODULES:
                    modules[alias.asname or alias.name] = dotted
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr.startswith("_"):
                found.append(node.attr)
            owner = ast.unparse(node.value)
            first, _, rest = owner.partition(".")
            owner = ".".join(filter(None, [modules.get(first, ""), rest]))
            if first in modules and owner in ("mpodis", *PUBLIC_MODULES):
                check(f"{owner}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id.startswith("_"):
            found.append(node.id)
        elif isinstance(node, ast.alias) and node.name.split(".")[-1].startswith("_"):
            found.append(node.name)
    return found


def texts(cell):
    """Everything but the images in the outputs of a cell."""
    for output in cell.outputs:
        yield output.get("text", "")
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield data if isinstance(data, str) else str(data)


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_short_enough_to_edit(path):
    lines = [line.strip() for cell in code_cells(read(path)) for line in cell.source.splitlines()]
    assert sum(bool(line) and not line.startswith("#") for line in lines) <= LONGEST


@every_notebook
def test_one_title_and_no_level_of_headings_is_left_out(path):
    found = [
        len(mark[1])
        for cell in read(path).cells
        if cell.cell_type == "markdown"
        for mark in re.finditer(r"^(#+) ", re.sub(r"```.*?```", "", cell.source, flags=re.S), re.M)
    ]
    assert found[0] == 1
    assert found.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(found))


@every_notebook
def test_only_public_names(path):
    found = private_names("\n".join(cell.source for cell in code_cells(read(path))))
    assert not found, f"not public: {found}"


@every_notebook
def test_committed_executed(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    strange = [
        output
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error"
        or (output.get("name") == "stderr" and re.search("Warning|Error|Traceback", output.text))
    ]
    assert not strange


@every_notebook
def test_no_path_in_outputs(path):
    found = [
        match.group()
        for cell in code_cells(read(path))
        for text in texts(cell)
        for match in ABSOLUTE_PATH.finditer(text)
    ]
    assert not found


LONGEST = 60
"""The most lines of code in a notebook, without blank lines and comments."""

FEW_SWEEPS = 2
"""What a test waits for: every cell, but not every sweep."""

FEW_EPOCHS = 5

SETTINGS = {"IMAGES": 4, "NOISY": 1}
"""Most of what a notebook may set at the beginning of a line."""


def shortened(notebook):
    """With small settings, few sweeps and few epochs."""
    for cell in code_cells(notebook):
        cell.source = re.sub(
            r'(\bmax_sweeps(?:=|": ))(\d+)',
            lambda m: f"{m[1]}{min(int(m[2]), FEW_SWEEPS)}",
            cell.source,
        )
        cell.source = re.sub(
            r"\bepochs=(\d+)", lambda m: f"epochs={min(int(m[1]), FEW_EPOCHS)}", cell.source
        )
        cell.source = re.sub(  # without epochs= it is trained by its whole recipe
            r"\b(train_tnn\((?:\w+|load_data\(.*?\)), )(?![^)]*epochs=)",
            rf"\1epochs={FEW_EPOCHS}, ",
            cell.source,
        )
        cell.source = re.sub(
            rf"^({'|'.join(SETTINGS)}) = (\d+)\b",
            lambda m: f"{m[1]} = {min(int(m[2]), SETTINGS[m[1]])}",
            cell.source,
            flags=re.MULTILINE,
        )
    return notebook


def test_a_shortened_notebook_has_smaller_settings_and_nothing_else_changed():
    sources = [
        'a(max_sweeps=60, init_sweeps=60); b(max_sweeps=1, epochs=30); c(**{"max_sweeps": 25})',
        "IMAGES = 30  # or more\nNOISY = 1\nMORE_IMAGES = 30; IMAGES_OF = 9",
        "train_tnn(data, seed=0); train_tnn(data, seed=0, epochs=3)",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    shorter = shortened(nbformat.v4.new_notebook(cells=cells))
    assert [cell.source for cell in shorter.cells] == [
        'a(max_sweeps=2, init_sweeps=60); b(max_sweeps=1, epochs=5); c(**{"max_sweeps": 2})',
        "IMAGES = 4  # or more\nNOISY = 1\nMORE_IMAGES = 30; IMAGES_OF = 9",
        "train_tnn(data, epochs=5, seed=0); train_tnn(data, seed=0, epochs=3)",
    ]


@every_notebook
def test_runs(path, tmp_path):
    client = NotebookClient(
        shortened(read(path)),
        kernel_name="python3",
        timeout=300,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    after = client.execute(env=environment)
    assert not list(tmp_path.iterdir()), "the notebook leaves files behind"
    for old, new in zip(code_cells(read(path)), code_cells(after), strict=True):
        kinds = [[sorted(o.data) for o in c.outputs if "data" in o] for c in (old, new)]
        assert kinds[0] == kinds[1], f"other outputs than the committed ones:\n{new.source}"


@pytest.mark.parametrize(
    "source",
    [
        "from mpodis.mpo import left_canonical",
        "from mpodis import mpo",
        "from mpodis import missing_name",
        "from mpodis.nn import layers",
        "from mpodis.nn.mpo_linear import MPOLinear",
        "import mpodis.circuit",
        "import mpodis\nmpodis.gates.polar",
        "import mpodis.nn as networks\nnetworks.tnn",
        "from mpodis import nn\nnn.layers",
        "run._private",
        "_hidden = 1",
        "from numpy import _core",
    ],
)
def test_a_private_name_is_found(source):
    assert private_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "import mpodis\nmpodis.compress(x).table()\nmpodis.nn.train_tnn(data)",
        "from mpodis import compress, nn\nnn.train_tnn(data)",
        "from mpodis.plots import plot_depth",
        "import mpodis.quantum as quantum\nquantum.cost_table",
        "import numpy.linalg\nnumpy.linalg.norm(x)",
    ],
)
def test_a_public_name_passes(source):
    assert private_names(source) == []


@pytest.mark.parametrize("text", ["/home/me/x", "in '/opt/lib/a.py'", "~/runs", r"C:\runs"])
def test_a_path_is_found(text):
    assert ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["<td>1</td></tr>", "f / |M| / |A|", "1/2/3", "a/b", "https://x/y/z"]
)
def test_what_is_no_path_passes(text):
    assert not ABSOLUTE_PATH.search(text)

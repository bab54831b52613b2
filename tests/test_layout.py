"""The package's shape: imports point downward, heavy libraries stay in their place, no pickle."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_cover  # of source texts, which a tracer only slows down
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mpodis"

# Lowest first: a module imports only from modules that stand before it (a folder counts as one).
ORDER = (
    "arguments",
    "conventions",
    "arrays",
    "layers",
    "files",
    "workers",
    "tables",
    "progress",
    "plots",
    "gates",
    "sites",
    "mpo",
    "measures",
    "circuit",
    "absorption",
    "hamiltonians",
    "time_evolution",
    "compile_targets",
    "factorization",
    "fit",
    "environments",
    "objectives",
    "options",
    "optimise",
    "structured",
    "advice",
    "store",
    "synthesis",
    "disentangling",
    "kraus",
    "direct",
    "resynthesis",
    "compile_runs",
    "compiling",
    "encodings",
    "data",
    "weights",
    "nn",
    "targets",
    "quantum",
    "explorer",
    "jobs",
    "study",
    "run_status",
    "paper",
    "report",
    "cli",
)
RANK = {name: rank for rank, name in enumerate(ORDER)}

# Who may import what is heavy or optional; a library's relatives are listed with it.
HOMES = {
    "mpodis.quantum": {"quantum", "jobs", "study", "paper", "report", "cli"},
    "qiskit": {"quantum"},
    "torch": {"data", "jobs", "nn", "paper", "study"},
}
RELATIVES = {
    "qiskit_aer": "qiskit",
    "qiskit_experiments": "qiskit",
    "qiskit_ibm_runtime": "qiskit",
    "qiskit_qasm3_import": "qiskit",
    "safetensors.torch": "torch",
    "torchvision": "torch",
}
# (module, library): allowed inside a function there
LAZY: set[tuple[str, str]] = {
    ("mpodis.arrays", "torch"),
    ("mpodis.layers", "torch"),
    ("mpodis.compile_targets", "mpodis.quantum"),
    ("mpodis.compiling", "mpodis.quantum"),
    ("mpodis.environments.arrays", "torch"),
    ("mpodis.weights", "torch"),
}

PICKLES = {"_pickle", "cloudpickle", "dill", "marshal", "pickle", "shelve"}
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "README.md",
    "mpodis",
    "notebooks",
    "pyproject.toml",
    "scripts",
    "tests",
}


@dataclass(frozen=True)
class Import:
    target: str  # absolute dotted name of what is imported, a name out of a module included
    line: int
    in_function: bool
    for_typing: bool  # under `if TYPE_CHECKING:`


def imports_of(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import in a module, those inside functions included, relative ones resolved."""
    here = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, in_function: bool, for_typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function, for_typing)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(f"{prefix}.{alias.name}", node.lineno, in_function, for_typing)
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_typing |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function, for_typing)

    yield from visit(tree, False, False)


def test_no_public_name_is_a_module():
    # `import mpodis.x` would put the module in the name's place
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(importlib.import_module("mpodis").__all__)


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def misplaced_imports(tree: ast.AST, module: str, *, is_package: bool = False) -> list[str]:
    """What a module may not import: what stands above it, and libraries that live elsewhere."""
    found = []
    source = module.split(".")[1] if "." in module else ""  # "" is mpodis/__init__.py
    for item in imports_of(tree, module, is_package=is_package):
        where = f"{module}, line {item.line}: "
        package, _, rest = item.target.partition(".")
        target = rest.partition(".")[0]
        if package == "mpodis" and source and target not in (source, "__version__"):
            if target not in RANK:
                found.append(
                    f"{where}imports {item.target}, no module in ORDER: take a public name from "
                    "the module that defines it, or add a new module to ORDER"
                )
            elif RANK[target] > RANK.get(source, len(ORDER)) and not (
                item.in_function and (module, f"mpodis.{target}") in LAZY
            ):
                found.append(f"{where}imports {item.target}, which stands above it in ORDER")
        if item.for_typing:
            continue
        for library, homes in HOMES.items():
            names = [library, *(name for name, of in RELATIVES.items() if of == library)]
            allowed = source in homes or (item.in_function and (module, library) in LAZY)
            if not allowed and any(within(item.target, name) for name in names):
                found.append(f"{where}imports {item.target}; only {sorted(homes)} may")
    return found


def pickles(tree: ast.AST, module: str) -> list[str]:
    """Ways to read a pickle: the libraries, allow_pickle=True, torch.load without weights_only."""
    found = []
    for item in imports_of(tree, module):
        library, _, name = item.target.partition(".")
        if library in PICKLES or (library == "torch" and name in ("load", "serialization.load")):
            found.append(f"{module}, line {item.line}: imports {item.target}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        where = f"{module}, line {node.lineno}: "
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        if options.get("allow_pickle", "False") != "False":
            found.append(f"{where}allow_pickle={options['allow_pickle']}")
        if ast.unparse(node.func) == "torch.load" and options.get("weights_only") != "True":
            found.append(f"{where}torch.load without weights_only=True")
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which imports, directly or through others, all of its group."""

    @cache
    def reached(module: str) -> frozenset[str]:
        found, todo = set(), [module]
        while todo:
            new = imports.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return frozenset(found)

    groups = {
        tuple(sorted(other for other in reached(module) if module in reached(other)))
        for module in imports
        if module in reached(module)
    }
    return sorted(map(list, groups))


@cache
def package() -> dict[str, tuple[ast.Module, bool]]:
    """Every module of mpodis: its syntax tree, and whether it is a folder's ``__init__``."""
    return {
        name_of(path): (ast.parse(path.read_text()), path.name == "__init__.py")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def modules_imported(
    tree: ast.AST, module: str, *, is_package: bool, names: Collection[str]
) -> set[str]:
    """The modules among ``names`` that ``module`` imports, for typing included.

    Imports inside a function, which run later or never, are left out.
    """
    found = set()
    for item in imports_of(tree, module, is_package=is_package):
        target = "" if item.in_function else item.target
        while target and target not in names:  # a name out of a module counts as the module
            target = target.rpartition(".")[0]
        found.add(target)
    return found - {"", module, "mpodis"}


def test_every_module_is_in_the_order():
    modules = {name.split(".")[1] for name in package() if "." in name}
    unknown = sorted(modules - {"__main__"} - set(ORDER))
    assert not unknown, f"new in mpodis/: {unknown}; give each its place in ORDER in {__file__}"
    gone = sorted(set(ORDER) - modules)
    assert not gone, f"no longer in mpodis/: {gone}; take each out of ORDER in {__file__}"


def test_the_architecture_page_has_every_module_in_this_order():
    page = (ROOT / "notebooks" / "architecture.md").read_text()
    table = page[page.index("| where | what |") :].partition("\n\n")[0]
    cells = (row.split(" | ")[0] for row in table.splitlines())
    named = [name for cell in cells for name in re.findall(r"`mpodis/(\w+)", cell)]
    assert tuple(named) == ORDER


def test_imports_point_downward():
    found = [
        offence
        for name, (tree, is_package) in package().items()
        for offence in misplaced_imports(tree, name, is_package=is_package)
    ]
    assert not found, "\n".join(found)


def test_no_imports_in_circles():
    imports = {
        name: modules_imported(tree, name, is_package=is_package, names=package())
        for name, (tree, is_package) in package().items()
    }
    found = circles(imports)
    assert not found, "modules that import each other: " + "; ".join(map(", ".join, found))


def test_no_pickle_is_read():
    found = [offence for name, (tree, _) in package().items() for offence in pickles(tree, name)]
    assert not found, "\n".join(found)


def test_circles_are_found_over_several_modules():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a", "e"}}
    assert circles(imports) == [["a", "b", "c"], ["e"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_what_a_module_imports():
    source = (
        "import torch\nfrom . import one\nfrom .two import name\nfrom ..mpo import compress\n"
        "def f():\n    from .lazy import later\n"
        "if TYPE_CHECKING:\n    from .typed import Type"
    )
    names = {"mpodis", "mpodis.mpo"} | {f"mpodis.nn.{n}" for n in ("one", "two", "lazy", "typed")}
    found = modules_imported(ast.parse(source), "mpodis.nn.here", is_package=False, names=names)
    assert found == names - {"mpodis", "mpodis.nn.lazy"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mpodis.mpo", "from mpodis.circuit import Circuit"),
        ("mpodis.mpo", "from mpodis import circuit"),
        ("mpodis.mpo", "def f():\n    from .circuit import Circuit"),
        ("mpodis.environments.tree", "from ..optimise import sweep"),
        ("mpodis.mpo", "from mpodis import compress"),
        ("mpodis.mpo", "import mpodis"),
        ("mpodis.structured.study", "import mpodis.quantum.readout"),
        ("mpodis.report", "from qiskit import QuantumCircuit"),
        ("mpodis.structured.cost", "import qiskit_aer"),
        ("mpodis.mpo", "def f():\n    import torch"),
        ("mpodis.files", "from safetensors.torch import save_file"),
    ],
)
def test_a_misplaced_import_is_found(module, source):
    assert misplaced_imports(ast.parse(source), module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "mpodis.circuit",
            "from mpodis.mpo import compress\nfrom mpodis import __version__",
        ),
        ("mpodis.nn.layer", "import torch\nfrom .training import heal"),
        ("mpodis.mpo", "if TYPE_CHECKING:\n    import torch"),
        ("mpodis.quantum.export", "from qiskit import qasm3\nfrom mpodis.nn.layer import Layer"),
        ("mpodis.report", "from mpodis.quantum.gate_costs import gate_cost"),
        ("mpodis.files", "import torchlike, safetensors.numpy"),
    ],
)
def test_a_rightful_import_passes(module, source):
    assert misplaced_imports(ast.parse(source), module) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from dill import loads",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
    ],
)
def test_a_pickle_is_found(source):
    assert pickles(ast.parse(source), "mpodis.files")


def test_safe_loading_passes():
    source = "np.load(path, allow_pickle=False)\ntorch.load(path, weights_only=True)"
    assert pickles(ast.parse(source), "mpodis.files") == []


def test_importing_the_package_loads_nothing_heavy_and_takes_no_time():
    code = (
        "import sys, time\n"
        "begin = time.perf_counter()\n"
        "import mpodis\n"
        "print(time.perf_counter() - begin)\n"
        "import mpodis.cli\n"  # neither does the help of a command
        "heavy = {'torch', 'qiskit', 'qiskit_aer', 'quimb', 'matplotlib', 'numpy', 'sklearn'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    times = []
    for _ in range(3):  # the best of three: the machine may be busy
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        seconds, heavy = done.stdout.splitlines()
        assert heavy == ""
        times.append(float(seconds))
    assert min(times) < 0.3


def test_public_names_resolve():
    import mpodis

    assert list(mpodis.__all__) == sorted(set(mpodis.__all__))
    missing = [name for name in mpodis.__all__ if not hasattr(mpodis, name)]
    assert not missing
    assert set(mpodis.__all__) <= set(dir(mpodis))


def test_every_test_that_is_listed_as_slow_exists(stale_slow_tests):
    assert not stale_slow_tests, f"in SLOW in conftest.py, but no test: {stale_slow_tests}"


def test_top_level_of_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    entries = {name.split("/")[0] for name in listed.stdout.split("\0") if name}
    assert entries <= TOP_LEVEL, f"not meant for the top level: {sorted(entries - TOP_LEVEL)}"

"""Faults put into files, processes and inputs, with what came of each: `./scripts/faults`.

    ./scripts/faults --out build/faults                 all of it; goes on where it was stopped
    ./scripts/faults --out build/faults --share 0.02    a fiftieth of the trials

Every trial follows from the seed, its kind and its number. It ends as "the same" (bit by bit what
it would have been), "refused" (an error that names the file or the value), "ended" (a command with
workers, in time and by a line, and it can go on), or as a fault:
"different" (without a word), "traceback" (an exception that no user should see), "orphan" (a worker
that lives ten seconds after its parent) or "hang".
"""

from __future__ import annotations

import argparse
import atexit
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

import mpodis
from mpodis import (
    compress,
    disentangle,
    entanglement,
    load_factorization,
    load_mpo,
    low_rank,
    quantum,
)
from mpodis import disentangling as run_module
from mpodis.circuit import brickwall, from_spec, staircase
from mpodis.files import append_lines, read_json, read_lines, write_json
from mpodis.jobs.directory import JobDirectory
from mpodis.options import DisentangleConfig
from mpodis.sites import site_tensors
from mpodis.store import PieceStore
from mpodis.study.measured import Variable
from mpodis.study.records import Record, StudyDirectory

TRIALS = {
    "flipped bit": 500,
    "truncated file": 300,
    "SIGKILL": 100,
    "SIGTERM": 20,
    "Ctrl-C twice": 20,
    "full disk": 20,
    "two processes": 10,
    "inputs of any kind": 100,
    "bombs": 46,
}
INPUTS, EXAMPLES = "inputs of any kind", 20
"""A trial of this kind has so many examples."""
GOOD = ("the same", "refused", "ended")
ORPHAN_SECONDS = 10
HANG_SECONDS = 120
OPTIONS = {"depth": 2, "n_init": 2, "init_sweeps": 3, "init": "identity", "max_sweeps": 12}
EXPECTED = (ValueError, TypeError, OSError, MemoryError, ImportError, OverflowError)
"""What the command line turns into one line."""


@cache
def matrix() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(16, 16))


def bits(found: mpodis.Factorization) -> bytes:
    arrays = (*found.left.gates, *site_tensors(found.core), *found.right.gates)
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


@cache
def alone() -> bytes:
    """The result of the run left alone."""
    return bits(disentangle(matrix(), **OPTIONS).factorization)


def judged(call: Callable[[], bool], names: str = "") -> tuple[str, str]:
    """What came of a trial, and the error; the call says whether its result is right."""
    try:
        return ("the same" if call() else "different"), ""
    except EXPECTED as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return ("refused" if names in text else "traceback"), text[:200]
    except Exception as error:  # a fault that is being looked for
        return "traceback", f"{type(error).__name__}: {error}"[:200]


# --- files


@cache
def pristine() -> Path:
    """A folder with files of every kind."""
    folder = Path(tempfile.mkdtemp(prefix="mpodis-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    before, run_module.CHECKPOINT_SECONDS = run_module.CHECKPOINT_SECONDS, 0.0
    try:
        found = disentangle(matrix(), **OPTIONS, run_dir=folder / "run")
    finally:
        run_module.CHECKPOINT_SECONDS = before
    found.factorization.save(folder / "f.safetensors")
    mpodis.save_mpo(matrix(), folder / "m.safetensors")
    PieceStore(folder / "pieces", {"seed": 3}, kind="example").save("a", {"x": matrix()}, {"n": 1})
    job = JobDirectory.create(folder / "job", "disentangle", DisentangleConfig(file="w.npy"))
    job.stage("a", lambda: {"loss": 0.25, "list": [1e-7, None]})
    job.finish({"job": "disentangle", "overlap": 0.1})
    quantum.export_circuits(found.factorization, folder / "circuits")
    study = StudyDirectory(folder / "study")
    study.write_study(STUDY)
    study.save(recorded())
    return folder


def _pieces(folder: Path) -> bool:
    found = PieceStore(folder / "pieces", {"seed": 3}, kind="example").load("a")
    return found is not None and np.array_equal(found[0]["x"], matrix()) and found[1] == {"n": 1}


def _job(folder: Path) -> bool:
    job, _, options = JobDirectory.open(folder / "job")
    same = job.read_stage("a") == {"loss": 0.25, "list": [1e-7, None]}
    same &= options["file"] == "w.npy"
    return same and job.results() == {"job": "disentangle", "overlap": 0.1}


STUDY = {"name": "example", "cases": [{"key": "a", "settings": {}, "seed": 3}]}


def recorded() -> Record:
    found = Variable(("row", "column"), matrix())
    return Record("a", {}, 3, {"loss": 0.25}, {"found": found}, 1.0, 1.0, {})


def _study(folder: Path) -> bool:
    study = StudyDirectory(folder / "study")
    record, wanted = study.load("a"), recorded()
    same = np.array_equal(record.arrays["found"].values, matrix())
    same &= (record.scalars, record.seed) == (wanted.scalars, wanted.seed)
    return same and study.read_study().items() >= STUDY.items()


def _circuits(folder: Path) -> bool:
    found, wanted = (quantum.load_circuits(f / "circuits") for f in (folder, pristine()))
    return found.keys() == wanted.keys() and all(
        np.array_equal(one, other)
        for name in found
        for one, other in zip(found[name].gates, wanted[name].gates, strict=True)
    )


def _run(folder: Path) -> bool:
    return bits(mpodis.resume(folder / "run").factorization) == alone()


FILES: dict[str, Callable[[Path], bool]] = {
    "run/checkpoint.safetensors": _run,
    "run/checkpoint.previous.safetensors": _run,
    "run/history.jsonl": _run,
    "run/config.json": _run,
    "run/problem.safetensors": _run,
    "f.safetensors": lambda folder: bits(load_factorization(folder / "f.safetensors")) == alone(),
    "m.safetensors": lambda folder: np.array_equal(
        load_mpo(folder / "m.safetensors").to_dense(), compress(matrix()).to_dense()
    ),
    "pieces/a.safetensors": _pieces,
    "pieces/config.json": _pieces,
    "job/config.json": _job,
    "job/stages/a.json": _job,
    "job/results.json": _job,
    "study/study.json": _study,
    "study/cases/a.json": _study,
    "study/cases/a.safetensors": _study,
    "circuits/circuits.json": _circuits,
    "circuits/left.qasm": _circuits,
}


def damaged(rng: np.random.Generator, number: int, *, cut: bool) -> tuple[str, str]:
    name = list(FILES)[number % len(FILES)]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(pristine(), folder, dirs_exist_ok=True)
        file = Path(folder, name)
        data = bytearray(file.read_bytes())
        if cut:
            data = data[: int(rng.integers(len(data)))]
        else:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        outcome, error = judged(lambda: FILES[name](Path(folder)), names=file.name)
    return outcome, f"{name}: {error}"


def full_disk(rng: np.random.Generator, number: int) -> tuple[str, str]:
    """Files cannot grow beyond a size, wherever in a run that is met."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        before, run_module.CHECKPOINT_SECONDS = run_module.CHECKPOINT_SECONDS, 0.0
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(rng.integers(200, 24000)), limits[1]))
        try:
            disentangle(matrix(), **OPTIONS, run_dir=path)
            error = "it fitted"
        except OSError as found:
            error = str(found)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            run_module.CHECKPOINT_SECONDS = before
        again = judged(
            lambda: bits(disentangle(matrix(), **OPTIONS, run_dir=path).factorization) == alone()
        )
        left = [file.name for file in path.rglob("*.part")]
    return ("traceback", f"left {left}") if left else (again[0], f"{error}; {again[1]}")


def bombs(rng: np.random.Generator, number: int) -> tuple[str, str]:
    """Headers and specs that declare what no memory holds; deep nesting."""
    if number >= 12:
        call = SPEC_BOMBS[number - 12]
        began = time.process_time()
        outcome, error = judged(lambda: bool(call()))
        return (outcome, error) if time.process_time() - began < 2 else ("hang", error)
    header = json.dumps({"a": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}})
    deep = b"[" * 10**6
    content = [
        (2**60).to_bytes(8, "little") + b"{}",
        len(header).to_bytes(8, "little") + header.encode(),
        len(deep).to_bytes(8, "little") + deep,
        deep,
    ][number % 4]
    reader = (load_factorization, load_mpo, read_json)[number // 4]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bomb.safetensors")
        file.write_bytes(content)
        began = time.monotonic()
        outcome, error = judged(lambda: bool(reader(file)), names=file.name)
    return (outcome, error) if time.monotonic() - began < 5 else ("hang", error)


SPEC_BOMBS: tuple[Callable[[], object], ...] = (
    lambda: from_spec("99999999*CNOT", 6),
    lambda: from_spec("9999999999999*1b", 6),
    lambda: from_spec("(" * 2000 + "1b" + ")" * 2000, 6),
    lambda: from_spec("9*(" * 60 + "1b" + ")" * 60, 6),
    lambda: from_spec("1b + " * 10**6 + "1b", 6),
    lambda: from_spec("30b", 40),
    lambda: from_spec("all 2b", 6, depth=10**9),
    lambda: brickwall(8, 10**12),
    lambda: brickwall(10**12, 1),
    lambda: staircase(10**7, 10**7),
    lambda: disentangle(matrix(), depth=10**9),
    lambda: disentangle(matrix(), left="2b", right="99999999*(2b + CNOT)"),
    lambda: disentangle(matrix(), depth=1, n_init=10**9),
    lambda: mpodis.compile_unitary(np.eye(16), depth=1, n_init=10**9),
    lambda: mpodis.compile_state(np.ones(16), depth=10**9),
    lambda: mpodis.synthesise(np.eye(16), 1, n_init=10**9),
    lambda: mpodis.circuit_svd(matrix(), 1, n_init=10**9),
    lambda: mpodis.monarch(matrix(), n_init=10**9),
    lambda: mpodis.full_width_gates(matrix(), 1, n_init=10**9),
    lambda: mpodis.targets.random_mpo(10**12, 2),
    lambda: mpodis.targets.random_mpo(40, 10**9),
    lambda: mpodis.targets.random_matrix(10**6, 10**6),
    lambda: mpodis.Study(disentangle, settings={"operator": matrix()}, seeds=10**9),
    lambda: mpodis.Study(disentangle, grid={"depth": range(10**12)}),
    lambda: mpodis.Study(
        disentangle,
        settings={"operator": matrix()},
        grid={"depth": range(1, 5000), "n_init": range(1, 5000)},
    ),
    lambda: mpodis.pareto(matrix(), rounds=10**9),
    lambda: mpodis.resynthesise(matrix(), n_searches=10**9),
    lambda: mpodis.layered_encoding(np.ones(16), 10**9),
    lambda: mpodis.best_monarch(matrix(), parameters=64, factors=(10**9,)),
    lambda: disentangle(matrix(), depth=1, init_scale=1e300),
    lambda: mpodis.pauli_chain(10**9, ZZ=1.0),
    lambda: mpodis.evolution(mpodis.pauli_chain(4, ZZ=1.0, X=0.5), 1e300),
    lambda: mpodis.trotter(mpodis.pauli_chain(4, ZZ=1.0), 1.0, steps=10**9),
    lambda: mpodis.trotter(mpodis.pauli_chain(4, ZZ=1.0), 1.0, "fitted", layers=10**9),
)


# --- processes

CHILD = """
import sys, time
import numpy as np
import faults
from mpodis import disentangle, disentangling
from mpodis.store import RunStore
from mpodis.workers import pool

disentangling.CHECKPOINT_SECONDS = 0.0
save = RunStore.save

def slowly(self, state):
    save(self, state)
    time.sleep(0.02)

RunStore.save = slowly
disentangle(faults.matrix(), **faults.OPTIONS, run_dir=sys.argv[1])
"""


def _child(arguments: list[str]) -> subprocess.Popen:
    here = Path(__file__).resolve().parent
    places = os.pathsep.join([str(here), str(here.parent)])
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": places},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _wait(child: subprocess.Popen, until: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not until() and time.monotonic() < limit and child.poll() is None:
        time.sleep(0.01)
    return until()


def _group_lives(pid: int) -> bool:
    """Whether a process of the child's session works yet."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            return True
    return False


def _ended(child: subprocess.Popen) -> str:
    """Nothing, or "orphan": what is alive ten seconds after; it is ended then."""
    limit = time.monotonic() + ORPHAN_SECONDS
    while _group_lives(child.pid) and time.monotonic() < limit:
        time.sleep(0.1)
    if not _group_lives(child.pid):
        return ""
    os.killpg(child.pid, signal.SIGKILL)
    return "orphan"


def killed(rng: np.random.Generator, number: int) -> tuple[str, str]:
    """A search killed at any moment goes on to the same result."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        child = _child(["-c", CHILD, str(path)])
        _wait(child, path.exists, HANG_SECONDS)
        time.sleep(rng.uniform(0.0, 0.8))
        child.kill()
        child.communicate()
        orphan = _ended(child)
        count = len(list(path.glob("*")))
        outcome = judged(
            lambda: bits(disentangle(matrix(), **OPTIONS, run_dir=path).factorization) == alone()
        )
        left = [file.name for file in path.rglob("*.part")]
    if orphan or left:
        return orphan or "traceback", f"left {left}"
    return outcome[0], f"{count} files; {outcome[1]}"


def ended(rng: np.random.Generator, number: int, *, signals: tuple[int, ...]) -> tuple[str, str]:
    """A command with two workers ends in time, and can go on."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "w.npy"), np.random.default_rng(1).normal(size=(64, 64)))
        path = Path(folder, "run")
        code = "from mpodis.cli import main; main()"
        flags = ["--depth", "8", "--init", "identity", "--tol", "0", "--n-jobs", "2", "--quiet"]
        flags += ["--max-sweeps", "100000", "--n-init", "4", "--init-sweeps", "100000"]
        flags += ["--run-dir", str(path)]
        child = _child(["-c", code, "disentangle", f"{folder}/w.npy", *flags])
        _wait(child, lambda: (path / "overlap" / "config.json").exists(), HANG_SECONDS)
        time.sleep(rng.uniform(0.0, 4.0))
        for one in signals:
            os.killpg(child.pid, one)
            time.sleep(rng.uniform(0.0, 0.3))
        try:
            _, errors = child.communicate(timeout=ORPHAN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return "hang", ""
        if _ended(child):
            return "orphan", ""
        text = errors.decode(errors="replace").strip()
        if "Traceback" in text:
            return "traceback", text[-200:]
        there = JobDirectory.open(path)[1] == "disentangle"
    return ("ended" if there else "different"), f"exit {child.returncode}; {text[-100:]}"


def two_processes(rng: np.random.Generator, number: int) -> tuple[str, str]:
    """Of two that begin in one directory, one works there, and the other is told."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        children = [_child(["-c", CHILD, str(path)])]
        time.sleep(rng.uniform(0.0, 0.3))
        children.append(_child(["-c", CHILD, str(path)]))
        errors = [child.communicate(timeout=HANG_SECONDS)[1].decode() for child in children]
        good = [not child.returncode for child in children]
        told = all(k or "is working in" in e for k, e in zip(good, errors, strict=True))
        outcome = judged(lambda: bits(mpodis.load_run(path).factorization) == alone())
    if not any(good) or not told:
        return "traceback", errors[0][-200:]
    return outcome[0], f"{sum(good)} of 2 worked"


# --- inputs

NUMBERS = ("f2", "f4", "f8", ">f8", "g", "c8", "c16", "i4")
DTYPES = (*NUMBERS, "u1", "?", "O", "U3")
NO_SPECS = ("2b +", "-1*2b", "(2b", "CNOT*2", "", "9b", "é", "3b(2)", "2b,2b", "2**2b", "0*2b")


def inputs(seed: int, number: int) -> list[tuple[str, str]]:
    """Entries with arrays of any type, shape, content and layout, and with specs, of hypothesis.

    Where one is wrong, the smallest that hypothesis finds is the last.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    found = []

    @seeded(1000 * seed + number)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(example=_examples())
    def run(example: tuple[str, np.ndarray, tuple[str, int]]) -> None:
        entry, array, (spec, depth) = example
        outcome, error = judged(lambda: _right(entry, array, spec, depth))
        what = f"{entry} {array.dtype.str} {array.shape} {spec!r}"
        found.append((outcome, f"{what}: {error}"))
        assert outcome in GOOD, array

    try:
        run()
    except AssertionError as error:
        found[-1] = (found[-1][0], f"{found[-1][1]} {error}"[:400])
    return found


def _examples():
    """A strategy of (entry, array, (spec, its layers, or 0 where it is none))."""
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp

    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=8)
    matrices = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)

    def arrays_of(dtype: str, finite: bool):
        elements = st.none() | st.integers() | st.text(max_size=2)
        if dtype != "O":
            numbers = {"allow_nan": False, "allow_infinity": False} if finite else {}
            elements = hnp.from_dtype(np.dtype(dtype), **numbers)
        return hnp.arrays(dtype, matrices if finite else shapes, elements=elements)

    arrays = st.one_of(
        st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays_of(dtype, finite=True)),
        st.sampled_from(DTYPES).flatmap(lambda dtype: arrays_of(dtype, finite=False)),
    )
    layouts = st.sampled_from([np.asarray, np.flip, np.transpose])
    words = st.lists(st.sampled_from(["1b", "2b", "3b", "CNOT", "cz"]), min_size=1, max_size=3)
    groups = st.lists(st.tuples(st.integers(1, 4), words), min_size=1, max_size=3)
    specs = groups.map(
        lambda found: (
            " + ".join(f"{count}*({' + '.join(inner)})" for count, inner in found),
            sum(count * len(inner) for count, inner in found),
        )
    )
    wrong = (st.sampled_from(NO_SPECS) | st.text(max_size=6)).map(lambda text: (text, 0))
    arrays = st.tuples(layouts, arrays).map(lambda x: np.asarray(x[0](x[1])))
    return st.tuples(st.sampled_from(list(ENTRIES)), arrays, specs | specs | wrong)


def _right(entry: str, array: np.ndarray, spec: str, depth: int) -> bool:
    """Whether an entry gives what dense algebra gives."""
    if entry == "from_spec":
        found = from_spec(spec, 4)
        return found.n == 4 and (found.depth == depth or not depth)
    if entry == "disentangle":
        run = disentangle(array, left=spec, max_sweeps=1, n_init=1, init="identity")
        return math.isfinite(run.overlap) and abs(run.overlap) < 1 + 1e-6
    return ENTRIES[entry](array)


def _is_near(found: np.ndarray, array: np.ndarray) -> bool:
    """Whether a matrix is that of the input, to the rounding of the input's type."""
    wanted = array.astype(complex if array.dtype.kind == "c" else float)
    scale = max(float(np.abs(x).max(initial=0.0)) for x in (wanted.real, wanted.imag)) or 1.0
    rounding = np.finfo(array.dtype).eps if array.dtype.kind in "fc" else 0.0
    tolerance = max(1e-10, 100.0 * float(rounding))
    return bool((np.abs(found / scale - wanted / scale) <= tolerance).all())


ENTRIES: dict[str, Callable[[np.ndarray], bool]] = {
    "compress": lambda a: _is_near(compress(a).to_dense(), a),
    "low_rank": lambda a: _is_near(low_rank(a, min(a.shape)).matrix, a),
    "truncated_mpo": lambda a: _is_near(mpodis.truncated_mpo(a, 64).matrix, a),
    "entanglement": lambda a: bool(np.isfinite(entanglement(a).entropies).all()),
    "overlap": lambda a: abs(mpodis.overlap(a, a) - 1) < 1e-3,
    "log_norm": lambda a: math.isfinite(mpodis.log_norm(a)),
    "second_moment": lambda a: bool(np.isfinite(mpodis.second_moment(a)).all()),
    "mps_encoding": lambda a: abs(mpodis.mps_encoding(a).fidelity - 1) < 1e-3,
    "compile_state": lambda a: 0 <= _compiled(mpodis.compile_state, a) <= 1 + 1e-6,
    "compile_unitary": lambda a: math.isfinite(_compiled(mpodis.compile_unitary, a)),
    "disentangle": lambda a: False,
    "from_spec": lambda a: False,
}
"""Entries, and whether what they make of an array is right; the last two take specs."""


def _compiled(call: Callable, array: np.ndarray) -> float:
    return call(array, depth=1, n_init=1, max_iterations=2).loss


KINDS: dict[str, Callable[[np.random.Generator, int], tuple[str, str]]] = {
    "flipped bit": lambda rng, k: damaged(rng, k, cut=False),
    "truncated file": lambda rng, k: damaged(rng, k, cut=True),
    "SIGKILL": killed,
    "SIGTERM": lambda rng, k: ended(rng, k, signals=(signal.SIGTERM,)),
    "Ctrl-C twice": lambda rng, k: ended(rng, k, signals=(signal.SIGINT, signal.SIGINT)),
    "full disk": full_disk,
    "two processes": two_processes,
    "bombs": bombs,
}


@contextmanager
def quiet():
    """Runs log what they cannot use, as they should."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def trial(kind: str, number: int, seed: int = 0) -> dict:
    """One trial: what came of it, and a word on it; of inputs, the worst of some examples."""
    rng = np.random.default_rng([seed, list(TRIALS).index(kind), number])
    with quiet(), np.errstate(all="ignore"):
        found = inputs(seed, number) if kind == INPUTS else [KINDS[kind](rng, number)]
    outcome, note = next((one for one in found[::-1] if one[0] not in GOOD), found[-1])
    each = dict(Counter(outcome for outcome, _ in found))
    return {"kind": kind, "number": number, "outcome": outcome, "note": note, "examples": each}


def counts(done: list[dict]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter] = {}
    for one in done:
        found.setdefault(one["kind"], Counter()).update(one["examples"])
    return {kind: dict(found[kind]) for kind in TRIALS if kind in found}


ENDS = {
    "the same": "the same, bit by bit",
    "refused": "refused by name",
    "ended": "ended in time",
}


def page_table(record: dict) -> str:
    """The table of `notebooks/explanation/faults.md`, from the record of a suite."""
    head = ["trials", "number", *(ENDS[end] for end in GOOD), "faults"]
    rows = [head, ["---"] * len(head)]
    for kind, found in record["trials"].items():
        good = [found.get(end, 0) for end in GOOD]
        total = sum(found.values())
        rows.append([kind, *map(str, [total, *good, total - sum(good)])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def commit() -> str:
    """What is tested: a commit of the repository, and whether files have changed since."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "HEAD")[:12] + ("+" if git("status", "--porcelain", "-uno") else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder; a stopped suite goes on")
    parser.add_argument("--share", type=float, default=1.0, help="of the trials of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(TRIALS), choices=list(TRIALS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    file, start, now = given.out / "trials.jsonl", f"faults {given.seed}", commit()
    done, last = read_lines(file, None, start) if file.exists() else ([], start)
    others = {one["commit"] for one in done} - {now}
    if others:
        parser.error(f"{file} has trials of {', '.join(others)}, not of {now}; give another --out")
    known = {(one["kind"], one["number"]) for one in done}
    for kind in given.kinds:
        for number in range(max(1, round(given.share * TRIALS[kind]))):
            if (kind, number) in known:
                continue
            one = trial(kind, number, given.seed) | {"commit": now}
            last = append_lines(file, [one], last)
            done.append(one)
            if one["outcome"] not in GOOD:
                print(f"{kind} {number}: {one['outcome']}: {one['note']}", flush=True)
    faults = [one for one in done if one["outcome"] not in GOOD]
    write_json(
        given.out / "faults.json",
        {
            "command": f"./scripts/faults --seed {given.seed} --share {given.share:g}",
            "mpodis": mpodis.__version__,
            "commit": now,
            "python": sys.version.split()[0],
            "trials": counts(done),
            "faults": faults,
        },
    )
    print(page_table({"trials": counts(done)}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

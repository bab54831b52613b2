"""`mpodis reproduce`: what every experiment goes through, by a small one and by table1."""

import json
import os
import re
import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from mpodis import report
from mpodis.cli import main
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.records import spread
from mpodis.options import read_options
from mpodis.paper import EXPERIMENTS, load_experiment
from mpodis.paper.by_pieces import Experiment, Options, Piece, command_line, run_experiment
from mpodis.paper.networks import network
from mpodis.paper.table1 import Table1
from mpodis.paper.table5 import Table5
from mpodis.tables import Table


def square(*, x, marks):
    with open(marks, "a") as file:
        file.write(f"{x}\n")
    if x > 2:
        raise RuntimeError("stopped here")
    return {"x": x, "square": x * x}


def small(marks, upto):
    return Experiment(
        name="table1",
        title="squares",
        options=Options,
        pieces=lambda options: [
            Piece(f"x{x}", square, {"x": x, "marks": str(marks)}) for x in range(upto)
        ],
        tables=lambda record: [Table(("x",), [(p["square"],) for p in record["pieces"].values()])],
        finding=lambda record: f"{len(record['pieces'])} squares",
        trains=False,
    )


def begin(path, options):
    return JobDirectory.create(path, f"{REPRODUCE}table1", options)


@pytest.mark.parametrize("workers", [1, 2])
def test_pieces_are_stored_and_not_done_again(tmp_path, workers):
    marks, options = tmp_path / "marks", Options(workers=workers, seed=3, seeds=2)
    directory = begin(tmp_path / "run", options)
    with pytest.raises(RuntimeError, match="stopped here"):
        run_experiment(small(marks, 4), options, directory)
    record = run_experiment(small(marks, 3), options, directory)
    assert list(record["pieces"]) == ["x0", "x1", "x2"]
    assert [p["square"] for p in record["pieces"].values()] == [0, 1, 4]
    done = sorted(marks.read_text().split())
    if workers == 2 and len(done) == 5:
        # one more was under way beside the one that failed
        done = sorted(set(done))
    assert done == ["0", "1", "2", "3"]
    assert record == directory.results()
    assert record["seeds"] == [3, 4]
    assert record["finding"] == "3 squares"
    assert record["data"] is None
    assert {"mpodis", "torch", "numpy"} <= set(record["versions"])


@dataclass(frozen=True)
class OnDevice(Options):
    device: str = "cuda"


TOGETHER = threading.Barrier(2, timeout=30)


def threads_of_libraries():
    blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return {"torch": torch.get_num_threads(), "blas": sorted(blas)}


def where(*, last):
    """The first to begin is the first to end, and the last looks around after that."""
    TOGETHER.wait()
    time.sleep(0.05 * last)
    return {"process": os.getpid(), "thread": threading.get_ident(), **threads_of_libraries()}


def test_pieces_on_a_device_are_done_in_threads(tmp_path):
    pieces = [Piece(f"x{k}", where, {"last": bool(k)}) for k in range(2)]
    beside = Experiment(
        "table1", "", OnDevice, lambda options: pieces, lambda r: [], lambda r: "", trains=False
    )
    options, before = OnDevice(workers=2), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(1) as another:
            record = run_experiment(beside, options, begin(tmp_path / "run", options))
            after = another.submit(threads_of_libraries).result()
    finally:
        torch.set_num_threads(before)
    found = record["pieces"].values()
    assert {piece["process"] for piece in found} == {os.getpid()}
    assert len({piece["thread"] for piece in found} - {threading.get_ident()}) == 2
    for piece in found:
        assert piece["torch"] == 1
        assert piece["blas"] == [1]
    assert after["torch"] == 2
    assert 2 in after["blas"]  # a library that was loaded meanwhile has its own


def test_two_pieces_of_one_name_are_refused(tmp_path):
    twice = small(tmp_path / "marks", 1).pieces(None) * 2
    options = Options()
    experiment = Experiment(
        "table1", "", Options, lambda options: twice, lambda r: [], lambda r: "", trains=False
    )
    with pytest.raises(ValueError, match="one name among x0, x0"):
        run_experiment(experiment, options, begin(tmp_path / "run", options))


def test_the_command_repeats_the_run_and_names_no_place():
    options = Table1(data_dir="/home/me", networks="/tmp/x", data="mnist", seeds=3, widths=(2, 6))
    words = command_line("table1", options)
    assert words == (
        "mpodis reproduce table1 --data mnist --seeds 3 --set widths=2,6 --data-dir DIR"
    )
    assert command_line("table1", Table1()) == "mpodis reproduce table1"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"gates": None, "mirrored": False}, ["gates=none", "mirrored=false"]),
        ({"validate": True, "device": "cuda:0"}, ["validate=true", "device=cuda:0"]),
        ({"architecture": "cifar10", "gates": 0.5}, ["architecture=cifar10", "gates=0.5"]),
        (
            {"architecture": "cifar10", "rows": ("equal parameters", "2b")},
            ["architecture=cifar10", "rows=equal parameters,2b"],
        ),
    ],
)
def test_the_words_of_a_command_are_read_as_they_were_meant(changed, words):
    options = Table5(**changed)
    command = shlex.split(command_line("table5", options))[3:]
    assert command[::2] == ["--set"] * len(words)
    assert sorted(command[1::2]) == sorted(words)
    texts = dict(word.split("=") for word in command[1::2])
    assert read_options(Table5, texts) == options


@pytest.mark.parametrize("name", [n for n in EXPERIMENTS if hasattr(load_experiment(n), "pieces")])
def test_every_experiment_is_complete(name):
    experiment = load_experiment(name)
    assert experiment.name == name
    assert issubclass(experiment.options, Options)
    assert experiment.title
    pieces = experiment.pieces(experiment.options(networks="x"))
    assert len({piece.name for piece in pieces}) == len(pieces) > 0
    for piece in pieces:
        assert re.fullmatch(r"[\w.+-]+", piece.name)
        json.dumps(piece.arguments)


def test_an_experiment_that_is_not_known():
    with pytest.raises(ValueError, match=r"'table9' is not known; use one of table1"):
        load_experiment("table9")


@pytest.mark.parametrize("bad", [{"seeds": 0}, {"seed": -1}, {"workers": 0}])
def test_options_that_make_no_sense(bad):
    name = next(iter(bad))
    with pytest.raises(ValueError, match=f"{name}={bad[name]} must be"):
        Options(**bad)


def test_spread():
    assert spread([1.0]) == "1.000"
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"


def test_texts_take_the_type_of_the_option():
    assert read_options(Table1, {"starts": "3", "widths": "2,3"}) == Table1(starts=3, widths=(2, 3))
    for given, message in (
        ({"starts": "many"}, "starts='many' must be a whole number$"),
        ({"starts": "none"}, "starts='none' must be a whole number$"),
    ):
        with pytest.raises(ValueError, match=message):
            read_options(Table1, given)
    for given, message in (
        ({"gates": "None"}, "gates='None' must be a number"),
        ({"mirrored": "maybe"}, "mirrored='maybe' must be true or false"),
    ):
        with pytest.raises(ValueError, match=message):
            read_options(Table5, given)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_options_of_every_experiment_are_read_back(name):
    options = load_experiment(name).options()
    given = {k: v for k, v in options.to_dict().items() if v is not None}
    texts = {k: ",".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in given.items()}
    assert read_options(type(options), texts) == options


@pytest.fixture(scope="module")
def table1(tmp_path_factory):
    """The whole command on the digits."""
    out = tmp_path_factory.mktemp("table1") / "run"
    words = [
        "reproduce",
        "table1",
        "--seeds",
        "2",
        "--workers",
        "1",
        "--run-dir",
        str(out),
        "--quiet",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            [
                "mpodis",
                *words,
                "--set",
                "widths=2,4",
                "--set",
                "starts=1",
                "--set",
                "max_sweeps=5",
                "--set",
                "groups=SO",
            ],
        )
        main()
    return out


def test_table1_leaves_record_figure_and_page(table1, capsys):
    record = json.loads((table1 / "results.json").read_text())
    assert record["data"]["name"] == "digits"
    assert record["command"] == (
        "mpodis reproduce table1 --seeds 2 --workers 1 --set widths=2,4 --set groups=SO "
        "--set starts=1 --set max_sweeps=5"
    )
    by = {(r["width"], r["core"], r["seed"]): r["overlap"] for r in record["rows"]}
    assert len(by) == len(record["rows"]) == 8
    for seed in (0, 1):
        assert by[2, "fixed", seed] < by[4, "fixed", seed]
        assert by[2, "fixed", seed] < by[2, "update", seed]
    verdict = "8 results of 2 seeds."
    assert verdict in (table1 / "report.html").read_text()
    assert (table1 / "figures" / "table1.png").stat().st_size > 10_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mpodis", "show", str(table1)])
        main()
    shown = capsys.readouterr().out
    assert "4-body" in shown
    assert verdict in shown


def test_networks_are_found_again(table1):
    layer = network("digits", str(table1 / "networks"), 1).mpo
    assert layer.to_mpo().L == 6
    assert not layer.training


def test_its_panels_are_one_figure(table1):
    record = json.loads((table1 / "results.json").read_text())
    assert report.figure_of(record)[:4] == b"\x89PNG"


def test_the_list_of_experiments(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mpodis", "reproduce"])
    main()
    out = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", out, re.M) for name in EXPERIMENTS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table9"], "experiment 'table9' is not known"),
        (["table1", "--set", "widths"], "--set 'widths' is not of the form KEY=VALUE"),
        (["table1", "--set", "depth=3"], "unknown option 'depth'"),
        (["table1", "--data", "mnist"], "--data-dir"),
    ],
)
def test_wrong_commands_leave_nothing_behind(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mpodis", "reproduce", *words])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

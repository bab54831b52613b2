"""`mpodis reproduce`: what every experiment goes through, by a small one and by table1."""

import json
import re
import shlex

import pytest

from mpodis import report
from mpodis.cli import main
from mpodis.jobs.records import mean_spread, spread
from mpodis.options import read_options
from mpodis.paper import EXPERIMENTS, load_experiment
from mpodis.paper.base import Options
from mpodis.paper.networks import network
from mpodis.paper.running import command_line
from mpodis.paper.table1 import Table1
from mpodis.paper.table5 import Table5


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


def test_an_experiment_that_is_not_known():
    with pytest.raises(ValueError, match=r"'table9' is not known; use one of table1"):
        load_experiment("table9")


@pytest.mark.parametrize("bad", [{"seeds": 0}, {"seed": -1}, {"n_jobs": 0}])
def test_options_that_make_no_sense(bad):
    name = next(iter(bad))
    with pytest.raises(ValueError, match=f"{name}={bad[name]} must be"):
        Options(**bad)


def test_spread():
    assert spread([1.0]) == "1.000"
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"
    assert mean_spread([90.0]) == "90.00"
    assert mean_spread([90.0, 92.0, 91.0], 1) == "91.0 +- 1.0 (90.0 to 92.0)"


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
        "--n-jobs",
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
        "mpodis reproduce table1 --seeds 2 --n-jobs 1 --set widths=2,4 --set groups=SO "
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

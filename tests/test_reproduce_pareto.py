"""`mpodis reproduce pareto` on the digits, with the tiniest settings."""

import json
import re
import statistics

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mpodis.cli import main
from mpodis.paper import load_experiment
from mpodis.paper.pareto import Pareto

EXPERIMENT = load_experiment("pareto")
FAMILIES = ("SO(4)", "O(4)", "pruned")
SETTINGS = (
    "depths=1",
    "starts=1",
    "rounds=1",
    "trials=1",
    "max_sweeps=2",
    "budgets=0,12,20",
    f"families={','.join(FAMILIES)}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("pareto") / "run"
    words = [
        "reproduce",
        "pareto",
        "--seeds",
        "1",
        "--workers",
        "1",
        "--run-dir",
        str(out),
        "--quiet",
    ]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mpodis", *words])
        main()
    return out


@pytest.fixture(scope="module")
def record(run):
    return json.loads((run / "results.json").read_text())


def test_every_network_has_its_front(record):
    (row,) = record["pieces"].values()
    assert {p["family"] for p in row["points"]} == set(FAMILIES)
    front = sorted((p for p in row["points"] if not p["dominated"]), key=lambda p: p["cnots"])
    assert front[0]["cnots"] == 0
    losses = [p["loss"] for p in front]
    assert losses == sorted(losses, reverse=True)
    for p in row["points"]:
        assert 0 < p["overlap"] <= p["bound"] + 1e-10
        assert p["loss"] == pytest.approx(1 - p["overlap"])
        assert 0 < p["activation_error"] < 2
    for one in row["transpiled"]:
        assert one["cnots"] == one["logical"] == one["FakeMontrealV2"]


def test_tables_are_read_off_the_points(record):
    (row,) = record["pieces"].values()
    families, walls, transpiled = EXPERIMENT.tables(record)
    assert families.columns == ("CNOTs", "front", *FAMILIES)
    assert [cells[0] for cells in families.rows] == ["0", "12", "20"]
    within = [p["overlap"] for p in row["points"] if p["cnots"] <= 20]
    assert families.rows[-1][1] == f"{max(within):.3f}"
    assert families.rows[0][2] is None  # no brickwall without CNOTs
    ends = [p for p in row["points"] if p["family"] == "SO(4)"]
    best = min(ends, key=lambda p: p["loss"])
    fewest = min(p["cnots"] for p in row["points"] if p["loss"] <= best["loss"])
    cells = {cells[0]: cells for cells in walls.rows}[str(best["cnots"])]
    assert cells[1:3] == (1, str(fewest))
    assert len(transpiled.rows) == len(row["transpiled"])


def test_the_finding_says_what_the_record_holds(record, run):
    (row,) = record["pieces"].values()
    text = record["finding"]
    for family in FAMILIES:
        within = [p for p in row["points"] if p["family"] == family and p["cnots"] <= 12]
        best = [max(p["overlap"] for p in within)] if within else []
        assert all(f"{statistics.median(x):.3f} with {family}" in text for x in [best] if x)
    assert text in (run / "report.html").read_text()
    assert "2 of 2 circuits on logical" in text
    assert re.search(r"SO\(4\) is ahead of O\(4\) .* behind for \d of 1 networks", text)


def test_a_record_of_the_activations_speaks_of_errors(record):
    options = record["options"] | {"objective": "activations", "families": ["pruned"]}
    pieces = {
        name: row | {"points": [p for p in row["points"] if p["family"] == "pruned"]}
        for name, row in record["pieces"].items()
    }
    pieces["seed0"]["transpiled"] = [{"cnots": 3, "logical": 3, "FakeMontrealV2": None}]
    other = record | {"options": options, "pieces": pieces}
    text = EXPERIMENT.finding(other)
    assert "relative error of the activations" in text
    assert "SO(4)" not in text
    assert "FakeMontrealV2" not in text
    assert len(EXPERIMENT.tables(other)) == 2


def test_panels_return_their_axes(record):
    for panel in EXPERIMENT.panels:
        ax = plt.subplots()[1]
        panel.draw(record, ax)
        assert ax.has_data()
        names = {text.get_text() for text in ax.get_legend().get_texts()}
        assert {"front", *FAMILIES} <= names


def test_the_median_panel_never_falls(record):
    ax = EXPERIMENT.panels[1].draw(record, plt.subplots()[1])
    for line in ax.get_lines():
        assert (np.diff(line.get_ydata()) >= 0).all()


def test_budgets_must_make_sense():
    for budgets in ((), (-1,)):
        with pytest.raises(ValueError, match="must be numbers of CNOTs, 0 or more"):
            Pareto(budgets=budgets)


def test_a_device_that_is_not_installed_is_left_out(monkeypatch):
    from mpodis.paper import pareto

    def missing(*_, **__):
        raise ImportError

    monkeypatch.setattr(pareto, "gate_cost", missing)
    given = type("Given", (), {"left": None, "right": None})
    assert pareto._cost(given, "FakeMontrealV2", 0) is None

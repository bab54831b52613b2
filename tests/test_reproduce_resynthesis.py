"""`mpodis reproduce resynthesis` on a network of the digits and shallow circuits."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose

from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.nn import RECIPES, Recipe
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.resynthesis import (
    EXPERIMENT,
    JOINT,
    ROWS,
    SIDES,
    Resynthesised,
)

SMALL = Resynthesised(seeds=1, workers=1, depth=1, tol=2e-2, rounds=1, trials=1, max_sweeps=10)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("resynthesis")
    options = replace(SMALL, networks=str(path / "networks"))
    directory = JobDirectory.create(path / "run", f"{REPRODUCE}resynthesis", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "digits", Recipe(2, 0.03, 64))
        return run_experiment(EXPERIMENT, options, directory)


def test_counts_fall_and_what_is_held_is_held(record):
    assert list(record["pieces"]) == ["both-seed0", "left-seed0"]
    for row in record["pieces"].values():
        gates = {"both": 6, "left": 3}[row["sides"]]
        cnots, overlap = row["cnots"], row["overlap"]
        assert cnots["qiskit"] == 2 * gates
        assert cnots["layer"] <= cnots["unitary"] <= cnots["qiskit"]
        assert cnots["approximated"] <= cnots["qiskit"]
        assert overlap["layer"] >= overlap["qiskit"] - 2e-2 - 1e-9
        assert min(row["unitaries"]) >= 1 - 2e-2 - 1e-9
        assert len(row["unitaries"]) == {"both": 2, "left": 1}[row["sides"]]
        # the unitary is off by |dQ|^2 / 2^n = 2 (1 - f), and the layer's overlap by no more
        off = sum(np.sqrt(2 * (1 - f) * 2**6) for f in row["unitaries"])
        assert abs(overlap["unitary"] - overlap["qiskit"]) <= 2 * off
        counts, losses = zip(*row["front"], strict=True)
        assert list(counts) == sorted(counts)
        assert list(losses) == sorted(losses, reverse=True)
        assert overlap["qiskit"] <= row["bound"] + 1e-9


def test_merged_neighbours_cost_less(record):
    joint = record["pieces"]["both-seed0"]["joint"]
    assert list(joint) == list(JOINT)
    assert joint["apart"] == 12
    assert joint["merged"] == 6  # one layer of gates meets the other
    assert joint["resynthesised"] <= joint["merged"]
    assert joint["resynthesised apart"] <= joint["apart"]
    assert record["pieces"]["both-seed0"]["joint_overlap"] >= 1 - 2e-2 - 1e-9
    assert "joint" not in record["pieces"]["left-seed0"]


def test_tables_figure_and_finding_are_those_of_the_record(record):
    counts, joint = EXPERIMENT.tables(record)
    assert len(counts.rows) == len(SIDES) * len(ROWS)
    assert [row[0] for row in joint.rows] == list(JOINT.values())
    row = record["pieces"]["both-seed0"]
    assert counts.rows[0][1] == str(row["cnots"]["qiskit"])
    assert f"{row['cnots']['layer']} with only the layer's overlap held" in record["finding"]
    drawn = [panel.draw(record, plt.subplots()[1]) for panel in EXPERIMENT.panels]
    ends = drawn[0].lines[0].get_xdata()
    assert ends.min() <= row["cnots"]["layer"] <= ends.max()
    values = sorted(float(x) for line in drawn[1].lines for x in line.get_xdata())
    expected = [n for r in record["pieces"].values() for n in r["cnots"].values()]
    assert_allclose(values, sorted([*expected, *row["joint"].values()]))


def test_what_is_asked_for(record):
    assert record["options"]["tol"] == 2e-2
    assert "--set depth=1" in record["command"]
    names = {piece.name for piece in EXPERIMENT.pieces(Resynthesised(seeds=2, seed=3))}
    assert names == {"both-seed3", "both-seed4", "left-seed3", "left-seed4"}

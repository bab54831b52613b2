"""The ablation: every idea is run as it says, and the tables and the finding add up."""

import pytest

from mpodis import report
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.paper import ablation
from mpodis.paper.running import run_experiment


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    options = ablation.Ablation(seeds=2, workers=1, depths=(1, 2), deepest=3)
    path = tmp_path_factory.mktemp("ablation") / "run"
    directory = JobDirectory.create(path, f"{REPRODUCE}ablation", options)
    quick = {"max_sweeps": 2, "init_sweeps": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "LADDER", {k: v | quick for k, v in ablation.LADDER.items()})
        patch.setattr(ablation, "VARIANTS", {k: v | quick for k, v in ablation.VARIANTS.items()})
        patch.setattr(ablation, "GROWTH", ablation.GROWTH | quick)
        run_experiment(ablation.EXPERIMENT, options, directory)
    return directory.results()


def test_every_idea_has_every_depth(record):
    table, seconds = ablation.tables(record)
    ideas = [*ablation.LADDER, ablation.GROWN, *ablation.VARIANTS]
    assert [row[0] for row in table.rows] == [*ideas, "bound of the grown ones"]
    assert [row[0] for row in seconds.rows] == ideas
    assert list(table.columns) == ["idea", "depth 1", "depth 2", "depth 3"]
    for row in table.rows:
        assert None not in row[1:3]
        assert (row[3] is not None) == (row[0] in (ablation.GROWN, "bound of the grown ones"))


def test_no_overlap_is_above_its_bound_and_growth_never_falls(record):
    for piece in record["pieces"].values():
        for row in piece["depths"].values():
            assert row["overlap"] <= row["bound"] + 1e-9
        if piece["idea"] == ablation.GROWN:
            f = [piece["depths"][str(d)]["overlap"] for d in (1, 2, 3)]
            assert f == sorted(f)
    assert "fell from one depth to the next 0 times" in record["finding"]
    assert "depth 2, one idea after the other: random gates" in record["finding"]


def test_the_figure(record):
    assert report.figure_of(record)[:4] == b"\x89PNG"


def test_depths_that_make_no_sense():
    with pytest.raises(ValueError, match=r"depths=\(4, 8\) must lie between 1 and deepest=6"):
        ablation.Ablation(depths=(4, 8), deepest=6)

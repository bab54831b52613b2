"""Running an experiment: cases are stored, computed once, and failures are said."""

import pytest

from mpodis import Study
from mpodis.paper.base import Experiment, Options
from mpodis.paper.running import run_experiment
from mpodis.run_status import RunStatus
from mpodis.tables import Table
from paper_runs import begin


def squares(*, x, marks, seed):
    with open(marks, "a") as file:
        file.write(f"{x}\n")
    if x > 2:
        raise RuntimeError("stopped here")
    return {
        "row": [{"power": p, "value": x**p, "text": "odd" if p % 2 else "even"} for p in (1, 2)]
    }


def small(marks, upto):
    return Experiment(
        name="fig4",
        title="powers",
        options=Options,
        study=lambda options: Study(
            squares,
            name="fig4",
            settings={"marks": str(marks)},
            grid={"x": range(upto)},
            seeds=list(options.range),
        ),
        tabulate=lambda frame: [
            Table.from_dataframe(frame.pivot_table("value", "x", ["power", "text"]))
        ],
        trains=False,
    )


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_cases_are_stored_and_not_computed_again(tmp_path, n_jobs):
    marks, options = tmp_path / "marks", Options(n_jobs=n_jobs, seed=3, seeds=1)
    directory = begin(tmp_path / "run", options)
    with pytest.raises(ValueError, match=r"1 of 4 cases failed.* \(x=3, seed 3\).*stopped here"):
        run_experiment(small(marks, 4), options, directory)
    assert directory.has_begun()
    assert RunStatus.of(directory.path).lines() == {"fig4": "fig4: 3 of 4 cases are done, 1 failed"}
    record = run_experiment(small(marks, 3), options, directory)
    assert sorted(marks.read_text().split()) == ["0", "1", "2", "3"]
    assert record["rows"] == [
        {"x": x, "seed": 3, "power": p, "value": x**p, "text": text}
        for x in range(3)
        for p, text in ((1, "odd"), (2, "even"))
    ]
    assert record == directory.results()
    file = min((directory.path / "fig4" / "cases").glob("*.json"))
    file.write_text(file.read_text().replace("3", "4"))
    assert RunStatus.of(directory.path).studies == {"fig4": "2 of 3 cases are done, 1 damaged"}
    assert record["seeds"] == [3]
    assert record["data"] is None
    assert {"mpodis", "torch", "numpy"} <= set(record["versions"])
    (table,) = small(marks, 3).tables(record)
    assert list(table.columns) == ["x", "1 odd", "2 even"]
    assert table.rows[2] == [2, 2.0, 4.0]


def test_what_the_study_finds_wrong_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="the grid has no values for 'x'; give at least one"):
        small(tmp_path / "marks", 0).prepare(Options())

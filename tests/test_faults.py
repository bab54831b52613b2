"""A short form of `./scripts/faults`: a few trials of each kind."""

from pathlib import Path

import pytest

from faults import GOOD, TRIALS, counts, page_table, trial
from mpodis.files import read_json

SHORT = {
    "flipped bit": 17,  # every file once
    "truncated file": 17,
    "SIGKILL": 2,
    "SIGTERM": 1,
    "Ctrl-C twice": 1,
    "full disk": 3,
    "two processes": 1,
    "inputs of any kind": 4,
    "bombs": 46,
}


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", TRIALS)
def test_nothing_is_lost_or_wrong_in_silence(kind):
    done = [trial(kind, number) for number in range(SHORT[kind])]
    assert [one for one in done if one["outcome"] not in GOOD] == []
    assert sum(counts(done)[kind].values()) >= SHORT[kind]


def test_the_table_of_the_page_is_that_of_the_record():
    notebooks = Path(__file__).resolve().parents[1] / "notebooks"
    record = read_json(notebooks / "records/faults.json")
    page = (notebooks / "explanation/faults.md").read_text()
    assert page_table(record) in page
    assert record["faults"] == []

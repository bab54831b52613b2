"""A short form of `./scripts/faults`: a few trials of each kind."""

import pytest

from faults import GOOD, TRIALS, counts, trial

SHORT = {
    "flipped bit": 24,
    "truncated file": 24,
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

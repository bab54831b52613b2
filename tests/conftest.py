"""What holds for every test: no display, no data of this machine, no global random state."""

import os
import sys

os.environ["MPLBACKEND"] = "Agg"  # before matplotlib is imported; subprocesses inherit it

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("mpodis", derandomize=True, deadline=None)
settings.load_profile("mpodis")


LONGEST = (
    "test_notebooks",
    "test_resynthesis",
    "test_checkpoint",
    "test_main_job",
    "test_stages",
    "test_disentangle",
    "test_engines_at_size",
    "test_export_files",
    "test_reproduce_fig4",
    "test_reproduce",
    "test_replace_layers_transformer",
    "test_layer_job",
    "test_hybrid_linear",
    "test_joint",
    "test_pareto",
    "test_reproduce_dense",
    "test_choose",
    "test_device",
    "test_dense",
    "test_cli",
)
"""Files that take longest: begun first, or one of two workers would end with them alone."""


def pytest_collection_modifyitems(items):
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))  # files stay together


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    monkeypatch.delenv("MPODIS_DATA", raising=False)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def _global_random_state_untouched():
    """Randomness enters by ``seed=``: numpy's global generator is as before, after every test."""
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    yield
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    assert after["pos"] == before["pos"], "numpy's global random state was used"
    np.testing.assert_array_equal(
        after["key"], before["key"], err_msg="numpy's global random state was changed"
    )


@pytest.fixture
def torch_generator_untouched():
    """The same for torch, in the files that ask for it: importing torch takes a second."""
    import torch

    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "torch's global generator was used"


@pytest.fixture
def mpodis(monkeypatch, capsys, tmp_path):
    """Call the command line in an empty folder; (exit status, stdout, stderr)."""
    from mpodis import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mpodis", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call

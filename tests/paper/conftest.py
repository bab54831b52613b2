"""Small runs of the experiments, each once, on networks that they share."""

from functools import cache, partial

import pytest

from mpodis import full_width_gates, structured
from mpodis.nn import Recipe
from mpodis.paper import healing, layers, load_experiment, replacements, trained
from mpodis.paper.networks import network, train
from mpodis.paper.running import run_experiment
from mpodis.structured import best_monarch
from paper_runs import SMALL, begin


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """Folder of the networks of all experiments."""
    return str(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="session")
def ran(networks, tmp_path_factory):
    """Records of small runs by the names of the experiments."""

    @cache
    def record(name):
        if name == "table1-costs":
            pytest.importorskip("qiskit_ibm_runtime")
        experiment = load_experiment(name)
        options = experiment.options(seeds=1, n_jobs=1, networks=networks, **SMALL[name])
        directory = begin(tmp_path_factory.mktemp(name) / "run", options, name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(layers.RECIPES, "digits", Recipe(3, 0.03, 64))
            patch.setattr(healing, "HIDDEN_WIDTHS", (16, 8))
            patch.setattr(trained, "SEEN", 100)
            few = {"fits": 1, "n_init": 1, "max_sweeps": 1, "max_iterations": 5}
            patch.setattr(replacements, "best_monarch", partial(best_monarch, **few))
            quick = partial(full_width_gates, n_init=1, max_iterations=5)
            patch.setattr(structured, "full_width_gates", quick)
            run_experiment(experiment, options, directory)
        return directory.results()  # as it is read again

    return record


@pytest.fixture(scope="session")
def mpo(networks):
    """Of the network that all experiments ask about."""
    train(seed=0, data="digits", data_dir=None, networks=networks)
    return network("digits", networks, 0).mpo.to_mpo()

"""`mpodis reproduce NAME`: the paper's tables and figures and our own, one file each.

An experiment is a study (`mpodis.Study`), whose function gives flat rows, and the tables and the
panels of a figure out of one DataFrame of all rows; see `base` for what that is made of and
`running` for how it runs. What was found is written by hand on a page of `notebooks/findings/`. A
new experiment is a file with an `EXPERIMENT` and a line in `EXPERIMENTS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpodis.paper.base import Experiment

__all__ = ["EXPERIMENTS", "load_experiment"]

EXPERIMENTS: dict[str, str] = {
    "table1": "overlap by the width of the gates, core fixed and updated (Table 1)",
    "table1-costs": "gates of every kind and width, compiled with today's Qiskit (Table 1)",
    "table2": "accuracy with the circuits executed: exactly, with shots, with noise (Table 2)",
    "fig4": "overlap, entropy and gates against depth, from random gates and ours (Fig. 4)",
    "gradient": "gradient descent on the overlap against sweeps (Sec. IV.1)",
    "signs": "operators of positive tensors against those of mixed signs (Sec. IV.1)",
    "direct": "circuits for Q, U and V of W = QR = USV against compressing first (Sec. IV)",
    "pareto": "overlap against CNOTs: fewest gates for a given operator",
    "resynthesis": "CNOTs by Qiskit and by our own sweeps at the same overlap; merged neighbours",
    "cores": "bond dimension of the core: overlap, parameters, CNOTs, accuracy",
    "aware": "accuracy without retraining under every objective, beside the baselines",
    "recipes": "accuracy without retraining and S_avg over networks of three training recipes",
    "planted": "circuits that were hidden in an operator or a unitary, found again",
    "ablation": "which idea brings which gain in overlap",
    "table3": "circuits trained inside a network on MNIST (Tables 3 and 4)",
    "table5": "circuits trained inside a network on CIFAR-10 (Tables 5 and 6)",
    "trained": "depth, exponent and start of circuits trained inside a network (Sec. V)",
    "healing": "dense networks compressed, disentangled and trained on, beside the baselines",
    "dense": "dense networks: accuracy against parameters, beside the baselines",
}
"""Name, which is also that of the module (with _ for -), and what is measured."""


def load_experiment(name: str) -> Experiment:
    """The experiment of a name; its module is imported here and not before."""
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment {name!r} is not known; use one of {', '.join(EXPERIMENTS)}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").EXPERIMENT

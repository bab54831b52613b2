"""`mpodis reproduce NAME`: the paper's tables and figures and our own, one file each.

An experiment says which pieces of work it consists of, what they mean as tables, panels of a
figure and a paragraph, and nothing else; see `base` for what that is made of and `running` for how
it runs. A new experiment is a file with an `EXPERIMENT` and a line in `EXPERIMENTS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpodis.experiments.reproduce.base import Experiment

__all__ = ["EXPERIMENTS", "load_experiment"]

EXPERIMENTS: dict[str, str] = {
    "table1": "overlap by the width of the gates, core fixed and updated (Table 1)",
}
"""Name, which is also that of the module, and what is measured."""


def load_experiment(name: str) -> Experiment:
    """The experiment of a name; its module is imported here and not before."""
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment {name!r} is not known; use one of {', '.join(EXPERIMENTS)}")
    return importlib.import_module(f"{__name__}.{name}").EXPERIMENT

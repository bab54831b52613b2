"""Studies: a function over a grid of settings and seeds, in processes or on a cluster.

`cases` says what is computed and under which key, `running` where, `records` how it is stored;
`measured` turns what a function returns into a record; `results`, `dataset` and `figures` are what
is made of the records, `live` and `page` what is shown meanwhile. `toml` reads and writes studies
as files, `functions` has what a file may name, `commands` is `mpodis study`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpodis.study.figures import fit_scaling, plot_study
    from mpodis.study.results import StudyResults, StudyStatus, load_study
    from mpodis.study.study import FUNCTIONS, Study

__all__ = [
    "FUNCTIONS",
    "Study",
    "StudyResults",
    "StudyStatus",
    "fit_scaling",
    "load_study",
    "plot_study",
]

_HOME = {
    "FUNCTIONS": "study",
    "Study": "study",
    "StudyResults": "results",
    "StudyStatus": "results",
    "fit_scaling": "figures",
    "load_study": "results",
    "plot_study": "figures",
}


def __getattr__(name: str):
    # when it is first used: the command line begins with this package, and is to begin at once
    if name not in _HOME:
        raise AttributeError(f"module 'mpodis.study' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mpodis.study.{_HOME[name]}"), name)
    globals()[name] = value
    return value

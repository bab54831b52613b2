"""Studies: a function over a grid of settings and seeds, in processes or on a cluster.

`cases` says what is computed and under which key, `running` where, `records` how it is stored;
`measured` turns what a function returns into a record; `results`, `dataset`, `figures` and `page`
are what is made of the records.
"""

from mpodis.study.results import StudyResults, StudyStatus, load_study
from mpodis.study.study import FUNCTIONS, Study

__all__ = ["FUNCTIONS", "Study", "StudyResults", "StudyStatus", "load_study"]

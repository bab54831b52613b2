"""What the tests of experiments share: options of seconds, and what every small run must show."""

import pandas as pd
from matplotlib import pyplot as plt

from mpodis import report
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.paper import load_experiment

SMALL = {
    "signs": {"bonds": (3,), "sites": 3, "depths": (1, 2), "sweeps": 6},
    "table1": {"widths": (2, 6), "starts": 1, "max_sweeps": 5},
    "direct": {
        "depths": (1, 2),
        "core_bonds": (1, 2),
        "starts": 1,
        "explore": 2,
        "max_sweeps": 3,
    },
    "gradient": {"depths": (1, 2), "evaluations": 8, "adam": (0.03, 0.1), "momentum": (0.3,)},
    "pareto": {
        "depths": (1,),
        "starts": 1,
        "rounds": 1,
        "trials": 1,
        "max_sweeps": 2,
        "families": ("SO(4)", "O(4)", "pruned"),
    },
    "resynthesis": {"depth": 1, "tol": 2e-2, "rounds": 1, "trials": 1, "max_sweeps": 10},
    "table1-costs": {"widths": (2, 3), "depths": (1, 2, 5)},
    "table2": {
        "images": 6,
        "tomography": (20, 100),
        "interference": (20_000,),
        "hypercube": (20_000,),
        "rows": ("wide", "trained"),
    },
    "ablation": {"depths": (1, 2), "deepest": 3, "explore": 1, "max_sweeps": 2},
    "aware": {"depths": (1, 2), "starts": 1, "max_sweeps": 5},
    "cores": {
        "tnn_bond": 3,
        "compress_bond": 4,
        "core_bonds": (1, 2),
        "depths": (1,),
        "starts": 1,
        "explore": 2,
        "max_sweeps": 4,
    },
    "fig4": {
        "widths": (2, 3),
        "deepest": (3, 2),
        "depths": (1, 2, 3),
        "sweeps": 4,
        "starts": 1,
        "max_sweeps": 4,
        "dip_width": 3,
        "dip_depth": 2,
        "dip_sweeps": 8,
    },
    "dense": {
        "cores": (1,),
        "depths": (1, 2),
        "mirrored": (2,),
        "bonds": (1,),
        "ranks": (1, 2),
        "monarchs": (256,),
        "starts": 1,
        "max_sweeps": 2,
        "rounds": 1,
    },
    "healing": {"epochs": 1, "depth": 1, "max_sweeps": 1, "share": 0.3},
    "planted": {
        "products": ("4x1", "3x2"),
        "unitaries": ("3x2",),
        "starts": 2,
        "max_sweeps": 100,
    },
    "recipes": {
        "depths": (1, 2),
        "starts": 1,
        "max_sweeps": 3,
        "objectives": ("activations",),
    },
    "table3": {"rows": ("base", "product", "2b"), "epochs": 1},
    "table5": {"rows": ("1b",), "epochs": 1},
    "trained": {
        "depths": (1, 5),
        "cut_depths": (5,),
        "start_depths": (2,),
        "epochs": 1,
        "checks": (2, 4),
        "heal_rates": (0.01, 0.02),
        "starts": 1,
        "max_sweeps": 5,
    },
}
"""Options that take seconds."""


def begin(path, options, name="fig4"):
    return JobDirectory.create(path, REPRODUCE + name, options)


def rows(record):
    return pd.DataFrame(record["rows"])


def check_tables_and_figures(record):
    """Tables are rectangular, every panel is drawn, and one seed is said to be too few."""
    experiment = load_experiment(record["experiment"])
    assert record["seeds"] == [0]
    assert record["data"] is None or record["data"]["name"] == "digits"
    for table in experiment.tables(record):
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
    for panel in experiment.panels:
        figure, ax = plt.subplots()
        panel.draw(rows(record), ax)
        assert ax.has_data()
        assert ax.get_legend() is None or ax.get_legend().get_texts()
        plt.close(figure)
    assert report.verdict(record)[1].startswith("One seed is too few to conclude anything from")

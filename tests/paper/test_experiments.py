"""What holds for all experiments: their studies, and options that make no sense."""

from pathlib import Path

import pytest

from mpodis.options import read_options
from mpodis.paper import EXPERIMENTS, load_experiment
from mpodis.paper.base import Experiment
from paper_runs import SMALL


def studies():
    return [name for name in EXPERIMENTS if isinstance(load_experiment(name), Experiment)]


@pytest.mark.parametrize("name", studies())
def test_every_experiment_is_small_somewhere_and_its_study_is_complete(name):
    assert name in SMALL
    shown = f'check_tables_and_figures(ran("{name}"))'
    assert any(shown in file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    experiment = load_experiment(name)
    assert experiment.name == name
    study = experiment.study(experiment.options(networks="x", seeds=2))
    assert study.name == name
    elsewhere = experiment.study(experiment.options(networks="y", data_dir="z", seeds=2))
    assert [case.key for case in study.cases] == [case.key for case in elsewhere.cases]
    texts = {
        k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in SMALL[name].items()
    }
    assert read_options(experiment.options, texts) == experiment.options(**SMALL[name])


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("ablation", {"depths": (4, 8), "deepest": 6}, r"depths=\(4, 8\) must end at deepest=6"),
        ("gradient", {"evaluations": 0}, "evaluations=0 must be a whole number, 1 or more"),
        ("gradient", {"adam": (0.1, 0.0)}, "adam=0.0 must be a positive number"),
        ("signs", {"bonds": (2, 5)}, "bonds=5 must be 4 or less"),
        ("table1", {"groups": ("O", "SU")}, "groups='SU' is not known; use one of SO, O, U"),
        ("table2", {"rows": ("narrow",)}, "rows='narrow' is not known; use one of wide, trained"),
        ("recipes", {"objectives": ()}, r"objectives=\(\) is empty; give at least one value"),
        ("aware", {"depths": (4, 2)}, r"depths=\(4, 2\) must be ascending"),
        ("cores", {"core_bonds": (2, 1)}, r"core_bonds=\(2, 1\) must ascend from below"),
        ("cores", {"core_bonds": (4,)}, r"below tnn_bond and compress_bond.* lower is 4"),
        ("fig4", {"deepest": (3,)}, r"deepest=\(3,\) must hold one number of layers for each"),
        ("fig4", {"dip_width": 7}, "dip_width=7 and dip_depth=6 must be among the widths"),
        ("planted", {"products": ("8 x 4",)}, "products holds '8 x 4'; write SITESxLAYERS"),
        ("planted", {"unitaries": ("0x4",)}, "unitaries holds '0x4'"),
        ("recipes", {"data": "cifar10"}, "'cifar10' has no recipes; use one of digits, mnist"),
        ("table3", {"architecture": "mnist-9"}, "architecture='mnist-9' is not known; use one of"),
        ("table3", {"data": "fashion"}, "data='fashion' is not known; use one of digits, mnist"),
        ("trained", {"depths": (0, 1)}, "depths=0 must be a whole number, 1 or more"),
        ("trained", {"cut_depths": (4, 8)}, "cut_depths=4 must be a whole number, 5 or more"),
        ("trained", {"checks": ()}, r"checks=\(\) is empty"),
    ],
)
def test_options_that_make_no_sense(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_experiment(name).options(**wrong)

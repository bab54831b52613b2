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
        ("gradient", {"evaluations": 0}, "evaluations=0 must be 1 or more"),
        ("gradient", {"adam": ()}, r"adam=\(\) must be learning rates above 0"),
        ("pareto", {"objective": "loss"}, "objective='loss': use one of overlap, activations"),
        ("signs", {"bonds": (2, 5)}, r"bonds=\(2, 5\) must be from 2 to 4"),
        ("signs", {"depths": (0, 2)}, r"depths=\(0, 2\) must be 1 or more"),
        ("signs", {"sites": 9}, "sites=9 must be from 2 to 8"),
        ("table1", {"groups": ("O", "SU")}, "group='SU' is not known; use one of SO, O, U"),
        ("table1-costs", {"kinds": ("SU",)}, "kind 'SU' is not known; use SO, O, U"),
        ("table1-costs", {"depths": (0, 2)}, r"depths=\(0, 2\) must name numbers of 1 or more"),
        ("table2", {"interference": (0,)}, r"interference=\(0,\) must be numbers of shots above 0"),
        ("table2", {"rows": ("narrow",)}, "row 'narrow' is not known"),
        ("ablation", {"depths": (4, 8), "deepest": 6}, r"depths=\(4, 8\) must lie between 1 and"),
        ("aware", {"depths": (4, 2)}, "must be ascending, from 1 on"),
        ("aware", {"depths": (0, 1)}, "must be ascending, from 1 on"),
        ("cores", {"core_bonds": (2, 1)}, r"core_bonds=\(2, 1\) must ascend"),
        ("cores", {"core_bonds": ()}, r"core_bonds=\(\) must begin below"),
        ("cores", {"core_bonds": (4,)}, r"begin below tnn_bond and compress_bond.* lower is 4"),
        ("cores", {"objectives": ("loss",)}, "objectives holds 'loss'; use one of overlap"),
        ("fig4", {"deepest": (3,)}, r"deepest=\(3,\) must hold one number of layers for each"),
        ("fig4", {"dip_width": 7}, "dip_width=7 and dip_depth=6 must be among the widths"),
        ("planted", {"products": ("8 x 4",)}, "products holds '8 x 4'; write SITESxLAYERS"),
        ("planted", {"unitaries": ("0x4",)}, "unitaries holds '0x4'"),
        ("planted", {"groups": ("SU",)}, "group='SU' is not known"),
        ("recipes", {"objectives": ()}, "must be some of overlap, activations, sensitivity"),
        ("recipes", {"objectives": ("loss",)}, "must be some of overlap, activations, sensi"),
        ("recipes", {"data": "cifar10"}, "'cifar10' has no recipes; use one of digits, mnist"),
        ("table3", {"architecture": "mnist-9"}, "architecture 'mnist-9' is not known; use one of"),
        ("table3", {"data": "fashion"}, "data='fashion' is not known; use one of digits, mnist"),
        ("table5", {"rows": ("2b", "3b")}, "row '3b' is not known; use one of base, product, 1b"),
        ("trained", {"depths": (2, 1)}, r"depths=\(2, 1\) must be ascending"),
        ("trained", {"cut_depths": (4, 8)}, r"cut_depths=\(4, 8\) must be of .*, above 4"),
        ("trained", {"checks": ()}, r"checks=\(\) must be ascending"),
        ("trained", {"data": "cifar10"}, "data='cifar10' has no recipe; use one of digits, mnist"),
    ],
)
def test_options_that_make_no_sense(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        load_experiment(name).options(**wrong)

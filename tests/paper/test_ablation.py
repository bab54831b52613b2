"""The experiment `ablation`."""

from mpodis.paper import load_experiment
from mpodis.paper.ablation import IDEAS, VARIANTS
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("ablation"))


def test_every_idea_has_every_depth(ran):
    found = rows(ran("ablation"))
    assert list(found["idea"].unique()) == list(IDEAS)
    for idea, each in found.groupby("idea"):
        assert each["depth"].tolist() == ([1, 2, 3] if idea == "+ grown" else [1, 2])
    assert (found["overlap"] <= found["bound"] + 1e-9).all()
    assert found.query("idea == '+ grown'")["overlap"].is_monotonic_increasing


def test_variants_can_be_left_out():
    experiment = load_experiment("ablation")
    study = experiment.study(experiment.options(networks="x", variants=False))
    assert {case.settings["idea"] for case in study.cases} == set(IDEAS) - set(VARIANTS)

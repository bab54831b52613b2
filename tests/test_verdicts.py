"""First sentences of the reports: what was reached, and what must be said against it."""

import re

import pytest

from mpodis.jobs.disentangle_page import verdict as of_layer
from mpodis.jobs.pareto_page import verdict as of_front
from mpodis.jobs.records import too_few
from mpodis.jobs.run_page import verdict as of_networks
from mpodis.options import NETWORK_OBJECTIVES

GATES = {"rows": [{"part": "both sides", "backend": "logical", "two_qubit": 1234}]}


def layer(objective="overlap", *, truncated=0.9, before=(1.0, 1.4), **changes):
    """Results of `mpodis disentangle` by one objective."""
    row = {
        "objective": objective,
        "overlap": 0.9,
        "bound": 0.95,
        "relative_error": 0.4,
        "activation_error": 0.3,
        "entropies": [0.5, 0.5],
        "remarks": [],
        "status": "converged",
        "costs": GATES,
    } | changes
    cut = {"objective": objective, "name": "truncated MPO, chi 1", "relative_error": truncated}
    baselines = [cut | {"activation_error": truncated}]
    return {"mpo": {"entropies": list(before)}, "runs": [row], "baselines": baselines}


@pytest.mark.parametrize("objective", ["overlap", "activations"])
def test_a_layer_that_is_disentangled(objective):
    (said,) = of_layer(layer(objective))
    assert f"by {objective} worked:" in said
    for fact in (
        "overlap 0.9 ",
        "at most 0.95 ",
        "from 1.20 to 0.50 nats",
        "1,234 two-qubit gates",
    ):
        assert fact in said
    assert ("error of the activations 0.300" in said) == (objective == "activations")


@pytest.mark.parametrize(
    ("objective", "changes", "word"),
    [
        ("overlap", {"entropies": [1.3, 1.3]}, "did not work"),
        ("overlap", {"entropies": [1.2, 1.19]}, "did not work"),
        ("overlap", {"relative_error": 1.24}, "did not work"),
        ("activations", {"activation_error": 0.95}, "did not work"),
        ("activations", {"entropies": [1.3, 1.3]}, "worked in part"),
        ("activations", {"relative_error": 1.24}, "worked in part"),
        ("overlap", {}, "worked in part"),
    ],
)
def test_a_layer_of_which_something_must_be_said(objective, changes, word):
    changes |= {"remarks": ["There is this."], "truncated": 2.0}
    first, said = of_layer(layer(objective, **changes))
    assert f"by {objective} {word}" in first
    assert said == f"{objective.capitalize()}: There is this."


def test_more_than_half_of_a_layer_is_lost_in_a_search_that_was_cut_short():
    (said,) = of_layer(layer(relative_error=0.6))
    assert "by overlap worked in part" in said
    first, said = of_layer(layer(status="max_seconds"))
    assert "by overlap worked:" in first
    assert "did not converge: max_seconds was reached" in said


def test_an_overlap_near_one_is_not_rounded_to_one():
    (said,) = of_layer(layer(overlap=1 - 4.7e-5, bound=1.0))
    assert "overlap 1 - 4.7e-05 (at most 1 with this core)" in said


def test_gates_that_gain_nothing():
    first, said = of_layer(layer(truncated=0.4))
    assert "by overlap did not work" in first
    for fact in ("gain nothing", "is 0.4 ", "truncated MPO, chi 1"):
        assert fact in said


def test_what_is_not_known_of_large_operators_is_not_said():
    nan = float("nan")
    (said,) = of_layer(layer(bound=nan, relative_error=nan, entropies=[nan, nan]))
    assert "worked" in said
    assert "nan" not in said
    (said,) = of_layer(layer(entropies=[], before=()))  # a single site
    assert "S_avg" not in said
    # what is exact is not beaten by what is exact too
    assert len(of_layer(layer(relative_error=1e-9, truncated=0.0))) == 1


def network(seed, lost=(20.0, 3.0, 1.0), *, low=(60.0, 50.0, 40.0), **changes):
    """Results of `mpodis run` on one network, points lost at depth 8 by objective."""
    rows = []
    for depth, factor in ((2, 2), (8, 1)):
        for objective, points in zip(NETWORK_OBJECTIVES, lost, strict=True):
            row = {"objective": objective, "depth": depth, "accuracy": 95 - factor * points}
            row |= {"core": 24, "gates": 256, "s_avg": 0.3}
            rows.append(row | {"relative_error": 0.8, "activation_error": 0.2} | changes)
    baselines = [
        {"name": "low rank 3", "objective": o, "accuracy": 95 - x, "parameters": 384}
        for o, x in zip(NETWORK_OBJECTIVES, low, strict=True)
    ]
    return {
        "seed": seed,
        "accuracy": {"original": 95.0},
        "mpo": {"parameters": 80, "entropies": [0.4, 0.5]},
        "rows": rows,
        "baselines": baselines,
    }


def test_one_network_says_what_was_lost_and_concludes_nothing():
    first, low, few, size = of_networks({"networks": [network(0)]})
    assert "depth 8" in first
    assert "95.00 %: 20.00 under overlap, 3.00 under activations and 1.00 under sens" in first
    assert "60.00, 50.00 and 40.00" in low
    assert {"384", "280"} <= set(re.findall(r"\d+", low))
    assert (few,) == too_few(1, "network", "--repeats")
    assert "80 parameters" in size


def test_three_networks_are_counted():
    networks = [network(k, (20.0 + k, 3.0, x)) for k, x in enumerate((-1.0, 45.0, 1.0))]
    first, _, count, *_ = of_networks({"networks": networks})
    assert "21.00 (20.00 to 22.00) under overlap" in first
    assert "1.00 (-1.00 to 45.00) under sensitivity" in first
    assert "3 networks" in first
    assert "a gain" in first
    assert "3 of 3 networks under overlap" in count
    assert "2 of 3 networks under sensitivity" in count


def test_networks_whose_layers_are_worse_than_nothing():
    bad = [network(k, s_avg=0.6, relative_error=1.5, activation_error=1.2) for k in range(3)]
    said = "\n".join(of_networks({"networks": [*bad, network(3)]}))
    for objective in NETWORK_OBJECTIVES:
        assert f"Under {objective} S_avg rises in 3 of 4 networks, from 0.45" in said
        for what in ("operator", "activations"):
            assert f"Under {objective} the relative error of the {what} is above 1" in said


def front(*values, key="overlap", family="SO(4)"):
    """Points with 0, 2, 4, ... CNOTs."""
    return [
        {"cnots": 2 * k, "family": family, "loss": abs((key == "overlap") - x), "dominated": False}
        | {key: x}
        for k, x in enumerate(values)
    ]


def test_cnots_for_an_overlap():
    walls = [p | {"dominated": True} for p in front(0.5, 0.6, 0.7, 0.8, 0.91)]
    points = front(0.55, 0.85, 0.92, 0.96, family="searched") + walls
    first, other = of_front({"objective": "overlap", "points": points})
    assert "2 for 0.8, 4 for 0.9 and 6 for 0.95" in first
    assert "0.96 with 6 CNOTs" in first
    assert "6, 8 and more than were tried" in other
    (alone,) = of_front({"objective": "overlap", "points": front(0.2, 0.4)})
    assert "No circuits" in alone
    assert "0.4 with 2 CNOTs" in alone


def test_cnots_for_an_error_of_the_activations():
    points = front(0.8, 0.35, 0.15, key="activation_error", family="pruned")
    (first,) = of_front({"objective": "activations", "points": points})
    assert "error of the activations: 2 for 0.5, 4 for 0.3 and 4 for 0.2" in first
    assert "0.15 with 4 CNOTs" in first


def test_from_three_cases_on_something_is_concluded():
    assert "One seed is" in too_few(1, "seed", "--seeds")[0]
    assert "2 seeds are" in too_few(2, "seed", "--seeds")[0]
    assert too_few(3, "seed", "--seeds") == ()

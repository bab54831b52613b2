"""Experiments on the engine of studies: each in small, on one network of the digits."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import Study, compress, disentangle, full_width_gates, report, truncated_mpo
from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import Circuit, random_circuit
from mpodis.data import load_data
from mpodis.fit import fit_core
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.status import RunStatus
from mpodis.measures import entanglement, singular_values
from mpodis.mpo import mpo_to_dense, truncate
from mpodis.nn import FactorizedLinear, Recipe, accuracy, replace_layer
from mpodis.nn.paper_networks import DIGITS, MNIST
from mpodis.optimise.descend import Budget
from mpodis.optimise.initial import first_core
from mpodis.optimise.problem import Problem
from mpodis.options import NETWORK_OBJECTIVES, SearchOptions, read_options
from mpodis.paper import (
    EXPERIMENTS,
    aware,
    cores,
    direct,
    fig4,
    gradient,
    healing,
    implicit,
    inside,
    layers,
    load_experiment,
    pareto,
    planted,
    recipes,
    replacements,
    resynthesis,
    signs,
    table1,
    table1_costs,
    table2,
    trained,
)
from mpodis.paper import networks as paper_networks
from mpodis.paper.ablation import IDEAS, VARIANTS
from mpodis.paper.base import Experiment, Options
from mpodis.paper.layers import trained_layer
from mpodis.paper.networks import network
from mpodis.paper.running import run_experiment
from mpodis.quantum import (
    BrickwallEncoding,
    Interference,
    NoisyRunner,
    StatevectorRunner,
    Tomography,
    TreeEncoding,
)
from mpodis.quantum.gate_costs import with_cost
from mpodis.structured import best_monarch
from mpodis.tables import Table
from reference import circuit_matrix, dense_from_cores, entropies, overlap, random_cores

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


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Folder of the networks of all experiments."""
    return str(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def ran(networks, tmp_path_factory):
    """Records of small runs by the names of the experiments."""

    @cache
    def record(name):
        if name == "table1-costs":
            pytest.importorskip("qiskit_ibm_runtime")
        experiment = load_experiment(name)
        options = experiment.options(seeds=1, workers=1, networks=networks, **SMALL[name])
        directory = begin(tmp_path_factory.mktemp(name) / "run", options, name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(layers.RECIPES, "digits", Recipe(3, 0.03, 64))
            patch.setattr(healing, "HIDDEN", (16, 8))
            patch.setattr(inside, "SEEN", 100)
            few = {"fits": 1, "n_init": 1, "max_sweeps": 1, "iterations": 5}
            patch.setattr(replacements, "best_monarch", partial(best_monarch, **few))
            quick = partial(full_width_gates, n_init=1, iterations=5)
            patch.setattr(aware, "full_width_gates", quick)
            run_experiment(experiment, options, directory)
        return directory.results()  # as it is read again

    return record


def begin(path, options, name="fig4"):
    return JobDirectory.create(path, REPRODUCE + name, options)


def rows(record):
    return pd.DataFrame(record["rows"])


# --- all experiments


@pytest.mark.parametrize("name", SMALL)
def test_tables_and_figures_of_a_small_run(name, ran):
    record, experiment = ran(name), load_experiment(name)
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


def studies():
    return [name for name in EXPERIMENTS if isinstance(load_experiment(name), Experiment)]


@pytest.mark.parametrize("name", studies())
def test_every_experiment_is_small_somewhere_and_its_study_is_complete(name):
    assert name in SMALL
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


@pytest.fixture(scope="module")
def mpo(ran, networks):
    """Of the network that all experiments ask about."""
    ran("ablation")
    return network("digits", networks, 0).mpo.to_mpo()


# --- running


def squares(*, x, marks, seed):
    with open(marks, "a") as file:
        file.write(f"{x}\n")
    if x > 2:
        raise RuntimeError("stopped here")
    return {
        "row": [{"power": p, "value": x**p, "text": "odd" if p % 2 else "even"} for p in (1, 2)]
    }


def small(marks, upto):
    return Experiment(
        name="fig4",
        title="powers",
        options=Options,
        study=lambda options: Study(
            squares,
            name="fig4",
            settings={"marks": str(marks)},
            grid={"x": range(upto)},
            seeds=list(options.range),
        ),
        tabulate=lambda frame: [
            Table.from_dataframe(frame.pivot_table("value", "x", ["power", "text"]))
        ],
        trains=False,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_cases_are_stored_and_not_computed_again(tmp_path, workers):
    marks, options = tmp_path / "marks", Options(workers=workers, seed=3, seeds=1)
    directory = begin(tmp_path / "run", options)
    with pytest.raises(ValueError, match=r"1 of 4 cases failed.* \(x=3, seed 3\).*stopped here"):
        run_experiment(small(marks, 4), options, directory)
    assert directory.has_begun()
    assert RunStatus.of(directory.path).lines() == {"fig4": "fig4: 3 of 4 cases are done"}
    record = run_experiment(small(marks, 3), options, directory)
    assert sorted(marks.read_text().split()) == ["0", "1", "2", "3"]
    assert record["rows"] == [
        {"x": x, "seed": 3, "power": p, "value": x**p, "text": text}
        for x in range(3)
        for p, text in ((1, "odd"), (2, "even"))
    ]
    assert record == directory.results()
    assert record["seeds"] == [3]
    assert record["data"] is None
    assert {"mpodis", "torch", "numpy"} <= set(record["versions"])
    (table,) = small(marks, 3).tables(record)
    assert list(table.columns) == ["x", "1 odd", "2 even"]
    assert table.rows[2] == [2, 2.0, 4.0]


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [("table1", {"widths": ()}, "the grid has no values for 'width'; give at least one")],
)
def test_what_the_study_finds_wrong_is_said_before_anything_is_written(name, wrong, message):
    experiment = load_experiment(name)
    with pytest.raises(ValueError, match=message):
        experiment.prepare(experiment.options(**wrong))


# --- ablation


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


# --- cores

LOSS = {
    "overlap": lambda row: 1 - row["overlap"],
    "activations": lambda row: row["activations"] ** 2,
}


def test_every_route_has_a_row_for_every_core(ran):
    found = rows(ran("cores")).query("depth > 0")
    there = [(route, bond) for route in ("scratch", "up") for bond in (1, 2)]
    for _, each in found.groupby(["layer", "objective"]):
        pairs = list(zip(each["route"], each["core_bond"], strict=True))
        assert pairs == [*there, ("down", 2), ("down", 1), ("restarts", 1)]
    assert_allclose(found["numbers"], found["core_bond"].map({1: 24, 2: 80}) + 6 * 6)
    assert (found["cx"] == 12).all()
    for objective, each in found.groupby("objective"):
        assert_allclose(each["loss"], LOSS[objective](each), atol=1e-9)


def test_routes_begin_where_they_say(ran):
    found = rows(ran("cores")).query("depth > 0")
    runs = found.pivot_table("loss", ["layer", "objective"], ["route", "core_bond"])
    assert (runs["up", 1] == runs["scratch", 1]).all()
    assert (runs["down", 2] == runs["up", 2]).all()
    assert (runs["up", 2] <= runs["up", 1] + 1e-12).all()  # a larger core, begun with a smaller
    assert (runs["restarts", 1] <= runs["scratch", 1]).all()


def test_depth_0_is_the_operator_and_its_truncations(ran, networks):
    found = rows(ran("cores")).query("layer == 'tnn' and objective == 'overlap'")
    where = {"data": "digits", "data_dir": None, "networks": networks}
    layer = trained_layer("tnn", seed=0, bond=3, **where)
    (whole,) = found.query("route == 'operator'").to_dict("records")
    assert whole["core_bond"] == 3
    assert whole["accuracy"] == layer.accuracy(layer.matrix)
    cuts = found.query("route == 'truncated'").set_index("core_bond")
    cut = truncated_mpo(compress(layer.matrix).mpo, 2)
    assert_allclose(cuts["overlap"][2], cut.overlap)
    assert cuts["numbers"][2] == cut.parameters == 80
    # the other routes have their own beginnings
    scratch = found.query("route == 'scratch'").set_index("core_bond")
    assert (scratch["overlap"] > cuts["overlap"]).all()


def test_ties_are_no_wins():
    made = [
        {"layer": "tnn", "objective": "overlap", "core_bond": 1, "depth": depth, "seed": seed}
        | {"route": route, "loss": loss}
        | dict.fromkeys(cores.FIGURES, 0.0)
        for seed, down in enumerate((1.0, 1.0, 1.0))
        for depth, route, loss in (
            (0, "operator", 0.0),
            (0, "truncated", 2.0),
            (2, "up", 1.0),
            (2, "down", down),
            (2, "scratch", (1.005, 1.5, 0.5)[seed]),
            (2, "restarts", 1.0),
        )
    ]
    *_, total = cores.tables(pd.DataFrame(made))
    counts = dict(map(tuple, total.rows))
    assert counts["down < scratch"] == counts["scratch < down"] == "1 of 3"
    assert counts["down < restarts"] == counts["restarts < down"] == "0 of 3"


def test_cores_as_large_as_the_operator_are_left_out():
    study = cores.study(cores.Cores(networks="x", tnn_bond=4, compress_bond=8))
    bonds = {case.arguments["layer"]: case.arguments["core_bonds"] for case in study.cases}
    assert bonds == {"tnn": [1, 2], "compressed": [1, 2, 4]}


# --- table1


def test_gates_as_wide_as_the_operator_reach_the_bound_in_closed_form(ran):
    found = rows(ran("table1")).query("width == 6").set_index(["group", "core"])
    assert (found["layout"] == "closed form").all()
    assert_allclose(found["overlap"], found["bound"], atol=1e-8)
    assert (found["plain"] < found["bound"] - 1e-8).all()
    assert (found["layers"] == 1).all()
    for group in table1.GROUPS:
        assert found["overlap"][group, "update"] > found["overlap"][group, "fixed"]


def test_the_best_layout_is_taken_and_the_papers_kept_beside_it(ran, mpo):
    found = rows(ran("table1"))
    assert (found["overlap"] <= found["bound"] + 1e-10).all()
    cases = found.set_index(["width", "group", "core"])
    row = cases.loc[2, "SO", "update"]
    search = {"n_init": 1, "max_sweeps": 5, "tol": 1e-4, "init": "grown"}
    left, right = table1.layouts(6, 2, "SO")[row["layout"]]
    again = disentangle(mpo, left=left, right=right, **search)
    assert_allclose(row["overlap"], again.overlap, atol=1e-12)
    plain = disentangle(mpo, left=brickwall(6, 1, 2), **search)
    assert_allclose(row["plain"], plain.overlap, atol=1e-12)
    assert row["plain"] < row["overlap"]


def test_layouts_shift_either_side_or_have_two_layers():
    one = table1.layouts(6, 3, "O")
    assert list(one) == ["plain", "shifted", "left shifted", "right shifted"]
    assert len(set(one.values())) == 4
    assert all(left.depth == right.depth == 1 for left, right in one.values())
    assert all(side.group == "O" for pair in one.values() for side in pair)
    ((left, right),) = table1.layouts(6, 4, "O").values()
    assert (left.depth, right) == (2, left.reversed())
    assert list(table1.layouts(6, 6, "O")) == ["plain"]


# --- table1-costs


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", list(table1_costs.KINDS))
def test_gates_are_of_their_kind(kind, width):
    for seed in range(4):
        gate = table1_costs.gate_of(width, kind, np.random.default_rng(seed))
        assert_allclose(gate @ gate.conj().T, np.eye(2**width), atol=1e-12)
        assert np.iscomplexobj(gate) == (kind == "U")
        if kind != "U":
            assert np.linalg.det(gate) == pytest.approx({"SO": 1, "O": -1}[kind])


def test_gates_take_the_cnots_that_theory_says(ran):
    found = rows(ran("table1-costs")).query("layers == 0")
    two = found.query("width == 2")
    assert (two["two_qubit"] == two["kind"].map({"SO": 2, "O": 3, "U": 3})).all()
    three = found.query("width == 3 and kind == 'U' and backend == 'logical'")
    # block ZXZ decomposition, arXiv 2403.13692, which Qiskit implements
    assert_allclose(three["two_qubit"], 22 / 48 * 4**3 - 1.5 * 2**3 + 5 / 3)


def test_brickwalls_take_no_swaps(ran):
    found = rows(ran("table1-costs")).query("layers > 0")
    assert found.groupby("layers")["gates"].unique().explode().to_dict() == {1: 3, 2: 5, 5: 13}
    cnots = found["kind"].map({"SO": 2, "O": 3, "U": 3}) * found["gates"]
    routed = found["two_qubit"] - cnots
    is_routed = (found["backend"] != "logical") & (found["level"] == 0)
    assert (routed[~is_routed] == 0).all()
    assert (routed[is_routed] > 0).all()  # the first six qubits of the device are no line
    assert (routed[is_routed] % 3 == 0).all()  # SWAPs


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_no_qubit_of_a_brickwall_moves(depth):
    pytest.importorskip("qiskit_ibm_runtime")
    circuit = random_circuit(brickwall(6, depth), seed=depth)
    compiled, cost = with_cost(circuit, backend=table1_costs.DEVICE, trials=1, seed=depth)
    assert cost.two_qubit == 2 * sum(place.width == 2 for place in circuit.ansatz.placements)
    assert compiled.layout.routing_permutation() == list(range(27))
    used = {
        tuple(sorted(compiled.find_bit(qubit).index for qubit in item.qubits))
        for item in compiled.data
        if len(item.qubits) == 2
    }
    assert len(used) == (5 if depth > 1 else 3)  # the bonds of six neighbours


def test_the_counts_of_the_paper_are_found():
    made = [
        {"layers": 0, "backend": backend, "width": width, "kind": kind, "level": level, "seed": 0}
        | {"one_qubit": factors[0] * one, "two_qubit": factors[1] * two}
        for (backend, width), (one, two) in table1_costs.PAPER.T.items()
        for kind in ("O", "U")
        for level in table1_costs.LEVELS
        for factors in [(1, 1) if (kind, level) == ("U", 2) else (2, 3)]
    ]
    found = table1_costs.distances(pd.DataFrame(made)).loc[table1_costs.DEVICE]
    assert found[2]["U"] == pytest.approx(1)
    assert found[2]["O"] == found[1]["U"] == pytest.approx(6**0.5)


def test_spreads_of_counts_are_shown_where_there_are_any():
    assert table1_costs.spread([1868, 1868]) == "1,868"
    assert table1_costs.spread([3, 1, 2000]) == "3 (1 to 2,000)"
    assert table1_costs.spread([36, 37]) == "36.5 (36 to 37)"


# --- resynthesis


def test_counts_fall_and_what_is_held_is_held(ran):
    found = rows(ran("resynthesis"))
    for (sides,), each in found.query("circuits == sides").groupby(["sides"]):
        ends = each.query("compiled != @resynthesis.FRONT").set_index("compiled")
        qiskit, near, unitary, layer = ends["cnots"]
        assert qiskit == {"both": 12, "left": 6}[sides]
        assert layer <= unitary <= qiskit
        assert near <= qiskit
        overlaps = ends["overlap"]
        assert overlaps[resynthesis.LAYER] >= overlaps[resynthesis.QISKIT] - 2e-2 - 1e-9
        least = ends["unitaries"]["ours, every unitary held"]
        assert least >= 1 - 2e-2 - 1e-9
        # the unitary is off by |dQ|^2 / 2^n = 2 (1 - f), and the layer's overlap by no more
        lost = abs(overlaps["ours, every unitary held"] - overlaps[resynthesis.QISKIT])
        assert lost <= 2 * {"both": 2, "left": 1}[sides] * np.sqrt(2 * (1 - least) * 2**6)
        front = each.query("compiled == @resynthesis.FRONT")
        assert front["cnots"].is_monotonic_increasing
        assert front["overlap"].is_monotonic_increasing
        assert overlaps[resynthesis.QISKIT] <= ends["bound"].iloc[0] + 1e-9


def test_merged_neighbours_cost_less(ran):
    pair = rows(ran("resynthesis")).query("circuits == @resynthesis.PAIR").set_index("compiled")
    apart, merged, ours_apart, ours = pair["cnots"]
    assert list(pair.index) == list(resynthesis.JOINT.values())
    assert (apart, merged) == (12, 6)  # one layer of gates meets the other
    assert ours <= merged
    assert ours_apart <= apart
    assert pair["unitaries"]["merged, ours"] >= 1 - 2e-2 - 1e-9


# --- pareto


def test_every_network_has_its_front(ran):
    found = rows(ran("pareto"))
    assert set(found["family"]) == set(SMALL["pareto"]["families"])
    front = found.query("not dominated").sort_values("cnots")
    assert front["cnots"].iloc[0] == 0
    assert front["loss"].is_monotonic_decreasing
    assert (found["overlap"] <= found["bound"] + 1e-10).all()
    assert_allclose(found["loss"], 1 - found["overlap"])
    assert found["activation_error"].between(0, 2).all()
    ends = found.dropna(subset="logical")
    assert len(ends) == 2
    assert (ends["cnots"] == ends["logical"]).all()


def test_tables_are_read_off_the_points(ran):
    found = rows(ran("pareto"))
    overlaps, walls, transpiled = load_experiment("pareto").tables(ran("pareto"))
    assert list(overlaps.columns) == ["CNOTs", "front", *SMALL["pareto"]["families"]]
    cells = {row[0]: row[1:] for row in overlaps.rows}
    assert cells[20][0] == f"{found.query('cnots <= 20')['overlap'].max():.3f}"
    assert cells[4][1] is None  # the brickwall takes more
    wall = found.query("family == 'SO(4)' and cnots > 0").sort_values("loss").iloc[0]
    fewest = found.query("loss <= @wall.loss")["cnots"].min()
    assert [wall["cnots"], str(fewest)] in [row[:2] for row in walls.rows]
    assert transpiled.rows[0] == ["logical", "2 of 2"]


def test_the_best_circuits_never_get_worse_with_more_cnots(ran):
    found = pareto.best(rows(ran("pareto")), range(13))
    for _, each in found.groupby("family"):
        assert each["overlap"].is_monotonic_increasing


def test_a_device_that_is_not_installed_gives_no_count(monkeypatch):
    def missing(*_, **__):
        raise ImportError

    monkeypatch.setattr(pareto, "gate_cost", missing)
    given = type("Given", (), {"left": None, "right": None})
    assert np.isnan(pareto.transpiled(given, "FakeMontrealV2", 0))


# --- direct


def test_cores_that_hold_the_layer_are_left_out():
    study = direct.study(direct.Direct(networks="x", seeds=1, core_bonds=(1, 2, 4, 8)))
    cores = [(c.settings["layer"], c.settings["method"]) for c in study.cases]
    bonds = [case for case in cores if "chi'" in case[1]]
    assert bonds[0] == ("tnn", "chi' 1")
    assert bonds[1:5] == [("dense", f"chi' {bond}") for bond in (1, 2, 4, 8)]
    assert bonds[5:] == [("compressed", "chi' 1"), ("compressed", "chi' 2")]


def test_every_method_has_a_row_for_every_depth(ran):
    found = rows(ran("direct")).query("method != @direct.NO_CIRCUITS")
    assert all(each.tolist() == [1, 2] for _, each in found.groupby(direct.CASE)["depth"])
    assert len(found) == 2 * (3 * len(direct.FACTORS) + 1 + 2 + 2)
    assert found["overlap"].between(-1, 1 + 1e-12).all()
    one_circuit = found["method"].str.startswith("QR")
    assert found["cx"][one_circuit].tolist() == [10, 20] * 6  # gates of one wire need none
    assert found["cx"][~one_circuit].tolist() == [12, 20] * 11
    counts = found.pivot_table("parameters", "method")["parameters"]
    assert counts.to_dict() == {
        **{method: 2080 if method.startswith("QR") else 64 for method in direct.FACTORS},
        "chi' 1": 24,
        "chi' 2": 80,
    }


def test_free_classical_parts_beat_given_factors(ran):
    last = rows(ran("direct")).query("depth == 2").pivot_table("overlap", "layer", "method")
    assert (last["USV"] > last[direct.USV_GIVEN]).all()
    assert (last["QR"] > last["QR, Q given"]).all()


def test_the_operators_are_described(ran, networks):
    found = rows(ran("direct")).query("method == @direct.NO_CIRCUITS")
    whole = found.query("operator == 'W'").set_index("layer")
    assert whole["mpo_bond"].to_dict() == {"tnn": 2, "dense": 64, "compressed": 4}
    assert whole["parameters"][["tnn", "compressed"]].tolist() == [80, 288]
    where = {"data": "digits", "data_dir": None, "networks": networks}
    matrix = trained_layer("dense", seed=0, bond=4, **where).matrix
    entropies = found.pivot_table("s_avg", "layer", "operator")
    assert_allclose(entropies["W"]["dense"], entanglement(matrix).average)
    assert_allclose(entropies["U"]["dense"], entanglement(np.linalg.svd(matrix)[0]).average)
    # less entangled are the operators of low bond
    assert entropies["W"]["tnn"] < entropies["W"]["compressed"] < entropies["W"]["dense"]


def test_half_of_the_networks_must_reach_the_overlap():
    curves = [(0.8, 0.9), (0.95, 0.99), (0.1, 0.2)]
    made = pd.DataFrame(
        {"layer": "tnn", "method": "USV", "seed": seed, "cx": 10 * k, "overlap": f}
        for seed, curve in enumerate(curves)
        for k, f in enumerate(curve, 1)
    )
    assert direct.needed(made, 0.85).iloc[0, 0] == 20
    assert direct.needed(made, 0.95).iloc[0, 0] == np.inf


def test_a_rotation_differs_by_a_sign():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    for matrix in (q, q * [-1, 1, 1, 1]):
        turned = direct.rotation(matrix)
        assert np.linalg.det(turned) > 0
        assert_allclose(turned[:, :3], matrix[:, :3])
        assert_allclose(np.abs(turned), np.abs(matrix))


@pytest.mark.parametrize(("kind", "bond"), [("tnn", 2), ("dense", 4), ("compressed", 4)])
def test_a_trained_layer_in_its_own_place_changes_nothing(kind, bond, networks, ran):
    ran("direct")
    where = {"data": "digits", "data_dir": None, "networks": networks}
    first, again = (trained_layer(kind, seed=0, bond=bond, **where) for _ in range(2))
    images = first.images
    assert first.matrix.shape == (64, 64)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert first.accuracy(first.matrix) == accuracy(first.model, images.x_test, images.y_test)
    assert first.accuracy(first.matrix) > 60
    assert first.accuracy(np.zeros((64, 64))) < 30
    assert max(compress(first.matrix).bonds) == (64 if kind == "dense" else bond)
    moment = images.x_train.T @ images.x_train / len(images.x_train)
    assert_allclose(first.covariance(), moment)


def test_a_layer_that_is_not_known():
    with pytest.raises(ValueError, match="kind='conv' is not known; use one of tnn, dense"):
        trained_layer("conv", seed=0, bond=2, data="digits", data_dir=None, networks="x")


# --- signs

SITES = 4
LEGS = ((2, 2),) * SITES
every_bond = pytest.mark.parametrize("bond", [2, 3, 4])


@pytest.fixture(scope="module", params=[2, 4])
def made(request):
    return request.param, signs.random_operators(request.param, SITES, np.random.default_rng(3))


def s_avg(matrix):
    return entropies(matrix, LEGS).mean()


def test_all_kinds_are_made_and_have_unit_norm(made):
    _, kinds = made
    assert list(kinds) == list(signs.KINDS)
    for matrix in kinds.values():
        assert_allclose(np.linalg.norm(matrix), 1, atol=1e-12)
        assert_allclose(signs.mean_entropy(matrix), s_avg(matrix), atol=1e-8)


def test_signs_are_as_named(made):
    _, kinds = made
    for kind, matrix in kinds.items():
        positive = kind in ("positive", "copying")
        assert (matrix.min() > 0) == positive
    for kind in ("product signs", "other signs"):
        assert_allclose(np.abs(kinds[kind]), kinds["positive"], atol=1e-14)


def test_bonds_are_those_asked_for(made):
    bond, kinds = made
    for kind in ("positive", "mixed", "product signs", "channel", "sum", "copying"):
        assert max(compress(kinds[kind], cutoff=1e-10).bonds) == bond
    assert max(compress(kinds["no product"], cutoff=1e-10).bonds) == bond + 1


def test_product_signs_change_no_entropy_and_other_signs_do(made):
    _, kinds = made
    before = entropies(kinds["positive"], LEGS)
    assert_allclose(entropies(kinds["product signs"], LEGS), before, atol=1e-10)
    assert np.all(entropies(kinds["other signs"], LEGS) > 2 * before)


def test_entropies_are_matched(made):
    _, kinds = made
    low, high = s_avg(kinds["positive"]), s_avg(kinds["mixed"])
    assert low < high
    for kind in ("channel", "sum"):
        assert_allclose(s_avg(kinds[kind]), low, rtol=1e-6)
    assert_allclose(s_avg(kinds["copying"]), high, rtol=1e-6)


def test_nothing_of_the_best_product_is_left(made):
    _, kinds = made
    plain, rest = kinds["positive"], kinds["no product"]
    best = mpo_to_dense(fit_core(compress(plain).mpo, max_bond=1))
    assert_allclose(np.vdot(best, rest), 0, atol=1e-6)
    removed = plain - np.vdot(plain, rest) * rest
    assert_allclose(removed, best * np.vdot(best, removed) / np.vdot(best, best), atol=1e-5)


def test_product_signs_are_a_symmetry_of_the_sweeps():
    kinds = signs.random_operators(2, SITES, np.random.default_rng(1))
    # from the identity itself, which the signs leave alone
    found = [
        disentangle(
            compress(kinds[kind], cutoff=1e-10).mpo,
            depth=2,
            method="sweeps",
            init="identity",
            n_init=1,
            init_scale=0.0,
            max_sweeps=15,
        )
        for kind in ("positive", "product signs")
    ]
    assert found[0].overlap > found[0].history.column("overlap")[0] + 1e-3
    assert_allclose(found[1].overlap, found[0].overlap, atol=1e-9)


@every_bond
def test_a_copying_operator_has_all_the_entropy_of_its_bonds(bond):
    rng = np.random.default_rng(2)
    cores = [signs.copying_core(core, rng) for core in random_cores(LEGS, bond)]
    assert_allclose(entropies(signs.dense(cores), LEGS), np.log(bond), atol=1e-12)


@pytest.mark.parametrize("weight", [0.05, 0.2, 0.4])
def test_matched_solves_for_the_entropy(weight):
    one, other = np.diag([1.0, 0, 0, 0]), np.diag([0, 0, 0, 1.0])

    def family(t):
        return (one + t * other) / np.sqrt(1 + t * t)

    wanted = -(weight * np.log(weight) + (1 - weight) * np.log(1 - weight))
    assert_allclose(signs.matched(family, wanted)[3, 3] ** 2, weight, rtol=1e-6)


def test_operators_repeat_and_differ_by_seed():
    one, two, three = (
        signs.random_operators(2, 3, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    for kind in signs.KINDS:
        np.testing.assert_array_equal(one[kind], two[kind])
        assert np.abs(one[kind] - three[kind]).max() > 1e-3


def test_measured_counts_the_sweeps_that_matter():
    matrix = signs.random_operators(2, 3, np.random.default_rng(5))["mixed"]
    best, *found = signs.measured(matrix, [1, 2], 15, seed=7)
    assert_allclose(best["s_avg"], entropies(matrix, LEGS[:3]).mean(), atol=1e-10)
    assert best["mpo_bond"] == 2
    assert best["overlap"] < found[0]["overlap"]
    for row in found:
        run = disentangle(
            compress(matrix, cutoff=1e-10).mpo,
            left=row["depth"],
            method="sweeps",
            init="identity",
            n_init=1,
            max_sweeps=15,
            seed=7,
        )
        f, n = run.history.column("overlap"), int(row["sweeps"])
        assert row["overlap"] == run.overlap <= row["bound"] + 1e-10
        assert row["bound"] == run.bound
        assert f[n] >= 0.99 * f[-1]
        assert n == 0 or f[n - 1] < 0.99 * f[-1]


def test_the_advantage_is_weighed_against_entropy():
    lacking = {"positive": 0.01, "mixed": 0.16, "channel": 0.01, "sum": 0.02, "copying": 0.08}
    made = [
        {"operators": "random", "bond": 2, "seed": seed, "depth": 2, "kind": kind}
        | {"overlap": 1 - lost * (1 + 0.1 * seed)}
        for seed in range(3)
        for kind, lost in lacking.items()
    ]
    pairs = signs.compared(pd.DataFrame(made))
    assert_allclose(pairs.query("pair == 'positive - mixed'")["ratio"], 16)
    assert (pairs.query("pair == 'copying - mixed'")["lead"] > 0).all()
    (left,) = signs.remaining(pairs).to_dict("records")
    # 1, 2 and 2 of a ratio of 16: no, a quarter and a quarter of its logarithm
    assert_allclose([left[f"positive - {kind}"] for kind in ("channel", "sum")], [0, 25], atol=1e-9)
    assert_allclose(left["copying - mixed"], 25)


def test_trained_networks_of_both_kinds_are_compared(ran):
    found = rows(ran("signs"))
    trained = found.query("operators == 'trained' and depth == 0").set_index("kind")
    assert trained["s_avg"]["positive"] < trained["s_avg"]["mixed"]
    assert (trained["accuracy"] > 20).all()
    assert (found["sweeps"].dropna() <= 6).all()
    assert set(found.query("operators == 'random'")["kind"]) == set(signs.KINDS)


# --- gradient

every_cell = pytest.mark.parametrize(("start", "core"), gradient.CELLS)


def race_of(start="identity", core="update", *, depth=3, evaluations=12):
    cores = random_cores(LEGS, 3, seed=5)
    problem = Problem.build(cores, brickwall(4, depth))
    options = SearchOptions(init=start, core=core, seed=3)
    return gradient.Race.at_start(problem, options, first_core(problem, options), evaluations)


def tensors_of(one):
    return [*one.engine.left, *one.engine.core, *one.engine.right]


def loss_from_dense(one):
    """1 - f from dense matrices."""
    problem, engine = one.problem, one.engine
    left = circuit_matrix(Circuit(problem.left, engine.left))
    right = circuit_matrix(Circuit(problem.right, engine.right))
    made = left @ dense_from_cores(engine.core) @ right
    return 1 - overlap(dense_from_cores(problem.tensors), made)


@every_cell
def test_all_begin_at_the_same_point(start, core):
    one, two = race_of(start, core), race_of(start, core)
    gradient.sweeps(one)
    for a, b in zip(tensors_of(race_of(start, core)), tensors_of(two), strict=True):
        assert_array_equal(a, b)
    assert two.objective.losses == []


@every_cell
@pytest.mark.parametrize("name", gradient.optimisers([0.03], [0.3]))
def test_a_run_takes_its_evaluations_and_gains(name, start, core):
    one = race_of(start, core)
    before, core_before = loss_from_dense(one), [site.copy() for site in one.engine.core]
    gradient.optimisers([0.03], [0.3])[name](one)
    losses = one.objective.losses
    assert len(losses) == len(one.objective.times) >= 12
    if name[0] not in ("lbfgs", "auto"):
        assert len(losses) == 12
    assert min(losses[:12]) < before - 1e-2
    if core == "fixed":
        # perhaps rescaled, which changes no overlap
        for a, b in zip(one.engine.core, core_before, strict=True):
            assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-12)
    for gate in (*one.engine.left, *one.engine.right):
        assert_allclose(gate.T @ gate, np.eye(len(gate)), atol=1e-12)
        assert_allclose(np.linalg.det(gate), 1, atol=1e-12)


@every_cell
def test_what_is_noted_is_the_overlap(start, core):
    one = race_of(start, core, evaluations=3)
    gradient.sweeps(one)
    assert_allclose(one.objective.losses[-1], loss_from_dense(one), atol=1e-12)
    assert np.all(np.diff(one.objective.losses) <= 1e-12)
    one = race_of(start, core, evaluations=1)
    first = loss_from_dense(one)
    gradient.descent(one, partial(torch.optim.Adam, lr=0.1))
    assert_allclose(one.objective.losses, [first], atol=1e-12)


@every_cell
def test_gradient_descent_goes_along_the_gradient(start, core):
    squares = []

    class Watched(torch.optim.SGD):
        def step(self):
            squares.append(sum(float((p.grad**2).sum()) for p in self.param_groups[0]["params"]))
            super().step()

    rate = 1e-5
    one = race_of(start, core, evaluations=4)
    gradient.descent(one, partial(Watched, lr=rate))
    # to first order, every step lowers the loss by rate |gradient|^2
    assert_allclose(-np.diff(one.objective.losses), rate * np.array(squares[:-1]), rtol=2e-2)
    assert len(one.objective.losses) == 4


def test_the_core_is_a_parameter_only_where_it_may_move():
    counts = {}
    for core in ("fixed", "update"):

        class Counted(torch.optim.SGD):
            def __init__(self, parameters, name=core):
                counts[name] = sum(p.numel() for p in parameters)
                super().__init__(parameters, lr=0.1)

        gradient.descent(race_of(core=core, evaluations=1), Counted)
    assert counts["update"] - counts["fixed"] == 4 * 4


def test_auto_sweeps_until_that_crawls():
    alone, both = race_of(evaluations=30), race_of(evaluations=30)
    gradient.sweeps(alone, until_slow=True)
    gradient.auto(both)
    count, losses = len(alone.objective.losses), alone.objective.losses
    assert 1 < count < 30
    assert both.objective.losses[:count] == losses
    falls = -np.diff(losses) / losses[1:]
    assert np.all(falls[:-1] >= Budget.crawl)
    assert falls[-1] < Budget.crawl
    whole = race_of(evaluations=30)
    gradient.sweeps(whole)
    assert both.objective.losses[count + 1] != whole.objective.losses[count + 1]


def test_what_goes_beyond_the_limit_is_cut_off():
    one = race_of(evaluations=5)
    gradient.lbfgs(one)
    assert len(one.objective.losses) > 5
    *_, last = gradient.summary(one, 0.0)
    assert last["overlap"] == 1 - min(one.objective.losses[:5])
    assert last["at"] == 5
    assert last["search_seconds"] > 0


def summary_of(losses, near, evaluations=10):
    times = [7.0 + k for k in range(1, len(losses) + 1)]
    noted = SimpleNamespace(losses=losses, times=times)
    made: Any = SimpleNamespace(objective=noted, evaluations=evaluations, began=7.0)
    return gradient.summary(made, near)


def test_a_summary_keeps_the_best_so_far_and_when_it_was_near():
    found = summary_of([0.5, 0.2, 0.4, 0.1], 0.8)
    assert [row["at"] for row in found] == gradient.marks(10)
    assert_allclose([row["overlap"] for row in found if row["at"] < 3], [0.5, 0.8])
    last = found[-1]
    assert (last["at"], last["overlap"], last["arrived"], last["search_seconds"]) == (10, 0.9, 2, 2)
    assert last["ms_each"] == 1000.0
    assert last["early"] == 0.5
    assert_allclose(summary_of([0.5, 0.4, 0.3, 0.2], 0.0, evaluations=30)[-1]["early"], 0.7)
    assert_allclose(summary_of([0.5, 0.4], 0.0, evaluations=30)[-1]["early"], 0.6)
    assert np.isnan(summary_of([0.5, 0.2], 0.81)[-1]["arrived"])


def test_every_optimiser_runs_in_every_problem(ran):
    found = rows(ran("gradient"))
    ends = found.query("at == 8")
    assert (ends.groupby(gradient.PROBLEM).size() == 6).all()
    assert set(zip(ends["method"], ends["rate"], strict=True)) == set(
        gradient.optimisers([0.03, 0.1], [0.3])
    )
    best = ends.groupby(gradient.PROBLEM)["overlap"].transform("max")
    assert ends["arrived"][ends["overlap"] == best].notna().all()
    for _, curve in found.groupby([*gradient.PROBLEM, "method", "rate"]):
        assert curve["overlap"].is_monotonic_increasing


def test_the_learning_rate_with_the_best_overlap_is_quoted_and_wins_are_counted():
    ends = {
        ("sweeps", 0.0): (0.8, 3.0),
        ("lbfgs", 0.0): (0.9, 2.0),
        ("adam", 0.1): (0.6, math.nan),
        ("adam", 1.0): (0.7, 9.0),
        ("momentum", 0.3): (0.65, 5.0),
    }
    made = [
        {"start": "random", "core": "fixed", "depth": depth, "seed": seed, "at": 9}
        | {"method": method, "rate": rate, "overlap": f + 0.01 * seed, "arrived": arrived}
        | {"early": f - 0.3 if method == "sweeps" else 0.45, "search_seconds": arrived}
        for depth in (2, 4)
        for seed in range(3)
        for (method, rate), (f, arrived) in ends.items()
    ]
    runs = gradient.chosen(pd.DataFrame(made))
    by_method = runs.set_index("method")["rate"]
    assert (by_method[["adam", gradient.EITHER]] == 1).all()
    duels = gradient.duels(runs).groupby("rival")[
        ["ahead early", "sooner there", "higher", "lower"]
    ]
    assert duels.sum().loc[gradient.EITHER].tolist() == [6, 6, 6, 0]
    assert duels.sum().loc["L-BFGS"].tolist() == [6, 0, 0, 6]


# --- table2


def test_every_way_of_execution_has_its_row(ran):
    found = rows(ran("table2"))
    ways = [
        ("exact", 0),
        ("tomography", 20),
        (table2.OPEN, 20),
        ("tomography", 100),
        (table2.OPEN, 100),
        ("hypercube", 20_000),
        ("interference", 20_000),
    ]
    wide = found.query("circuits == 'wide'")
    assert list(zip(wide["readout"], wide["shots"], strict=True)) == ways
    trained = found.query("circuits == 'trained'")
    assert list(zip(trained["readout"], trained["shots"], strict=True)) == [
        ways[0],
        ways[3],
        *ways[5:],
    ]
    assert (found["tested"] == 6).all()


def test_exact_execution_is_the_classical_layer(ran):
    exact = rows(ran("table2")).query("readout == 'exact'")
    assert (exact["agreement"] == 100).all()
    assert (exact["executed"] == exact["classical"]).all()
    assert (exact["n_circuits"] == 2).all()
    assert (exact["n_shots"] == 0).all()


def test_circuits_and_shots_of_an_image_are_those_of_both_sides(ran):
    wide = rows(ran("table2")).query("circuits == 'wide'").set_index(["readout", "shots"])
    counts = wide[["n_circuits", "n_shots"]]
    assert counts.loc["tomography", 100].tolist() == [2 * 730, 2 * (729 * 100 + 2000)]
    assert counts.loc[table2.OPEN, 100].tolist() == [2 * 729, 2 * 729 * 100]
    assert counts.loc["hypercube", 20_000].tolist() == [2 * 8, 2 * (7 * 20_000 + 2000)]
    assert counts.loc["interference", 20_000].tolist() == [2, 40_000]


def test_what_is_read_with_its_sign_agrees(ran):
    assert (rows(ran("table2")).query("readout != @table2.OPEN")["agreement"] > 60).all()


def test_the_runner_of_every_execution():
    assert isinstance(table2.runner("exact", 0, 0), StatevectorRunner)
    noisy = table2.runner("FakeMontreal", 0, 3)
    assert noisy == NoisyRunner(encoding=BrickwallEncoding(seed=3), seed=3, threads=1)
    assert table2.runner("FakeMontreal, exact tree", 0, 0).encoding == TreeEncoding()
    assert table2.runner("interference", 10_000, 0).readout == Interference(10_000)
    assert table2.runner(table2.OPEN, 1024, 0).readout == Tomography(1024, 0)


def test_two_body_circuits_take_the_place_of_the_layer(monkeypatch):
    data = load_data("digits")
    model = table2.CompactTNN(inputs=64, bond=2, classes=10, seed=0).double().eval()
    monkeypatch.setattr(table2, "network", lambda *_: model)
    _, found = table2.CIRCUITS["2-body"](data, "networks", 0, 1)
    assert {place.width for place in found.left.ansatz.placements} <= {1, 2}
    hidden = data.x_test[:5] @ found.to_dense()
    assert np.isfinite(table2.logits(model, hidden)).all()


# --- fig4


def test_no_overlap_exceeds_its_bound_and_ours_never_falls(ran):
    found = rows(ran("fig4"))
    assert (found["overlap"] <= found["bound"] + 1e-10).all()
    for width, each in found.query("way == 'ours'").groupby("width"):
        assert each["depth"].tolist() == list(range(1, {2: 3, 3: 2}[width] + 1))
        assert np.all(np.diff(each["overlap"]) >= -1e-12)


def test_the_papers_way_is_a_new_run_of_plain_sweeps_at_each_depth(ran, mpo):
    (row,) = rows(ran("fig4")).query("way == 'random' and width == 2 and depth == 2").itertuples()
    plain = {"core": "fixed", "init": "random", "n_init": 1, "method": "sweeps", "tol": 0.0}
    alone = disentangle(mpo, depth=2, max_sweeps=4, **plain)
    assert_allclose(row.overlap, alone.overlap, atol=1e-12)
    assert_allclose(row.s_avg, alone.entropies_after.mean(), atol=1e-12)
    assert alone.path("phase").tolist() == ["init"] + ["sweep"] * 4


def test_the_core_of_the_papers_way_is_that_of_the_truncated_operator(ran, mpo):
    s, t = (singular_values(mpo_to_dense(x)) for x in (mpo, truncate(mpo, max_bond=1).mpo))
    bound = float(s @ t / np.linalg.norm(s) / np.linalg.norm(t))
    found = rows(ran("fig4"))
    fixed = found.query("way not in ('ours', 'core updated')")
    assert_allclose(fixed["bound"], bound, atol=1e-10)
    assert abs(found.query("way == 'core updated'")["bound"].iloc[0] - bound) > 1e-6


def test_more_sweeps_go_on_from_where_fewer_end_and_variants_are_run_where_they_say(ran):
    found = rows(ran("fig4")).query("width == 3 and way != 'ours'")
    at_dip = found.query("depth == 2").set_index("way")["overlap"]
    assert at_dip["random"] < at_dip["more sweeps"]
    for way, each in found.groupby("way"):
        every = way == "random" or way in fig4.AGAINST_DEPTH
        assert each["depth"].tolist() == ([1, 2, 3] if every else [2])


def test_scrambling_keeps_the_singular_values_alone(mpo):
    scrambled = fig4._scrambled(mpo, 0)
    before, after = (singular_values(mpo_to_dense(x)) for x in (mpo, scrambled))
    assert_allclose(after, before, rtol=1e-10)
    assert entanglement(scrambled).average > 1.5 * entanglement(mpo).average
    other = mpo_to_dense(fig4._scrambled(mpo, 1))
    assert np.linalg.norm(other - mpo_to_dense(scrambled)) > 0.1 * np.linalg.norm(after)


def test_circuits_with_twice_the_parameters_of_one_gate_have_no_row(networks, mpo):
    same = {"data": "digits", "networks": networks, "seed": 0, "sweeps": 1, "grown": {}}
    assert fig4.overlaps(way="random", width=5, layers=8, **same)["row"]
    assert fig4.overlaps(way="random", width=5, layers=9, **same) == {}


def test_gates_of_both_circuits_are_counted(ran):
    # (012)(345), then (0)(123)(45): single wires cost nothing
    found = rows(ran("fig4")).query("width == 3 and way == 'random'")
    two, three = (fig4._cost(width, "logical") for width in (2, 3))
    assert found["logical"].tolist() == [4 * three, 6 * three + 2 * two, 10 * three + 2 * two]
    assert two == 2
    assert two < three < fig4._cost(4, "logical")


def test_a_device_that_is_not_installed_is_left_out(ran):
    record = ran("fig4")
    left = [{k: v for k, v in row.items() if k != "FakeMontrealV2"} for row in record["rows"]]
    *_, gates, _ = load_experiment("fig4").tables(record | {"rows": left})
    assert list(gates.columns) == ["width", "way", "logical", "logical, networks"]


def test_gates_count_where_a_network_first_gets_to_the_target():
    overlaps = {"random": [(0.94, 0.5, 0.99), (0.5, 0.6, 0.7)], "ours": [(0.9, 0.95)]}
    made = [
        {"way": way, "width": 2, "seed": seed, "depth": depth, "overlap": f, "logical": 10 * depth}
        for way, networks in overlaps.items()
        for seed, curve in enumerate(networks)
        for depth, f in enumerate(curve, start=1)
    ]
    found = fig4.reached(pd.DataFrame(made))["logical"]
    assert found["random"].tolist() == [10, np.inf]
    assert found["ours"].tolist() == [20]


# --- planted


def test_what_was_hidden_is_found(ran):
    found = rows(ran("planted"))
    cases = [("product core", "SO"), ("unitary", "SO"), ("unitary", "U"), ("reflected", "SO")]
    assert list(zip(found["hidden"], found["group"], strict=True)) == [cases[0], *cases]
    reflected = found["hidden"] == "reflected"
    assert_allclose(found["bound"], np.where(reflected, 1 - 2 / 8, 1.0))
    assert (found["gap"] > 1 - found["bound"] - 1e-12).all()
    assert (found["bond"] > 1).all()
    totals = load_experiment("planted").tables(ran("planted"))[-1]
    assert totals.rows[1:] == [["unitary", "2 of 2"], ["reflected", "1 of 1"]]


def test_a_reflection_counts_only_where_it_is_said_to_be_one():
    row = {"hidden": "reflected", "status": "determinant", "gap": 0.25, "bound": 0.75}
    other = [row | {"status": "converged"}, row | {"gap": 0.3}]
    frame = pd.DataFrame([row, *other, row | {"hidden": "unitary", "status": "exact"}])
    assert planted.judged(frame)["found"].tolist() == [True, False, False, True]


# --- aware


def test_every_objective_has_its_baselines(ran):
    found = rows(ran("aware"))
    names = [("circuits", 1), ("circuits", 2), ("nothing (W = 0)", 0), ("truncated", 0)]
    names += [("low rank, as many numbers", 1), ("low rank, as many numbers", 2)]
    names.append(("gates on all wires", 0))
    assert_allclose(found["accuracy"] + found["lost"], found.eval("accuracy + lost").iloc[0])
    for objective in NETWORK_OBJECTIVES:
        each = found.query("objective == @objective").set_index(["replacement", "depth"])
        assert list(each.index) == names
        first, ours = (each.loc["circuits", depth] for depth in (1, 2))
        assert first["overlap"] <= first["bound"] + 1e-9
        assert ours["loss"] <= first["loss"] + 1e-12
        low_rank = each["parameters"]["low rank, as many numbers", 2]
        assert low_rank >= ours["parameters"] + ours["gates"]
        if objective != "overlap":
            assert 0 <= ours["loss_bound"] <= ours["loss"] + 1e-12


def test_activation_errors_are_least_under_their_own_objective(ran):
    found = rows(ran("aware")).query("replacement == 'circuits' and depth == 2")
    errors = found.set_index("objective")["activation_error"]
    assert errors["activations"] < errors["overlap"]


# --- recipes


def test_every_network_is_of_its_recipe(ran, networks):
    found, layers = rows(ran("recipes")), set()
    assert found.groupby("recipe", sort=False)["depth"].apply(list).to_dict() == {
        recipe: [1, 2] for recipe in recipes.TRAINING
    }
    for recipe in recipes.TRAINING:
        mpo = network("digits", f"{networks}/{recipe}", 0).mpo.to_mpo()
        each = found.query("recipe == @recipe")
        assert_allclose(each["s_avg"], entanglement(mpo).average)
        assert_allclose(each["accuracy"] + each["lost"], each["original"])
        assert (each["original"] > 85).all()
        layers.add(mpo_to_dense(mpo).tobytes())
    assert len(layers) == 3


def test_rank_correlation_and_its_interval():
    x = np.linspace(0, 1, 12)
    assert_allclose(recipes.rank_correlation(pd.Series(np.exp(x), x)), 1)
    assert_allclose(recipes.rank_correlation(pd.Series(-(x**3), x)), -1)
    noise = np.random.default_rng(0).normal(size=200)
    value, low, high = recipes.rank_correlation(pd.Series(noise))
    assert low < 0 < high
    assert_allclose(high - low, 2 * 1.96 / np.sqrt(200), rtol=0.15)  # of the null distribution
    assert low < value < high
    assert np.isnan(recipes.rank_correlation(pd.Series([1.0, 2.0, 0.5], [0.3] * 3))).all()


# --- table3, table5


def trained_small(**changed):
    """One network of the digits."""
    given = {"data": "digits", "data_dir": None, "architecture": "digits", "network": "2b"}
    given |= {"seed": 0, "gates": None, "mirrored": False, "validate": False, "device": "cpu"}
    given |= {"epochs": 1, "learning_rate": 0.04, "batch_size": 250} | changed
    return implicit.train_network(**given)


def test_rows_are_layers_of_trained_networks(ran):
    found = rows(ran("table3"))
    assert found.groupby("network", sort=False)["layer"].apply(list).to_dict() == {
        name: [1, 2, 3] for name in ("base", "product", "2b")
    }
    for name, each in found.groupby("network"):
        counts = DIGITS.network(name, seed=0).counts()
        assert each[implicit.COUNTS].iloc[0].to_dict() == {k: counts[k] for k in implicit.COUNTS}
    assert found["accuracy"].between(15, 100).all()
    assert_allclose(found["accuracy"] * 3.6, (found["accuracy"] * 3.6).round(), atol=1e-9)
    entropies = found.dropna(subset="s_max")
    assert list(zip(entropies["network"], entropies["layer"], strict=True)) == [
        ("base", 1),
        ("base", 2),
    ]
    assert_allclose(entropies["s_max"], np.log(2))
    assert entropies["s_avg"].between(1e-3, np.log(2)).all()


def test_what_circuits_gain_is_counted_seed_by_seed(ran):
    found = rows(ran("table3")).assign(architecture="mnist")
    found["network"] = found["network"].replace("2b", "cnot")
    more = pd.concat([found, found.assign(seed=1, accuracy=90.0)])
    scores, _, gains = load_experiment("table3").tabulate(more)
    assert [row[-2:] for row in scores.rows] == [list(MNIST.paper[row[0]]) for row in scores.rows]
    first = found.query("layer == 1").set_index("network")["accuracy"]
    gain = first["cnot"] - first["product"]
    low, high = sorted((0.0, gain))
    lower = "1 of 2" if gain < 0 else "0 of 2"
    assert gains.rows == [["cnot", f"{gain / 2:.2f} ({low:.2f} to {high:.2f})", lower]]


def test_gates_begin_anywhere_or_near_the_identity():
    haar, near = trained_small(), trained_small(gates=0.1)
    assert haar["all"] == near["all"]
    assert haar["losses"] != near["losses"]
    assert near == trained_small(gates=0.1)


@pytest.fixture
def given_images(monkeypatch):
    """A function to put other images in the place of the digits."""

    def give(images):
        monkeypatch.setattr(paper_networks, "dataset", lambda *a, **k: images)
        paper_networks.single_precision.cache_clear()

    yield give
    paper_networks.single_precision.cache_clear()


def test_held_out_images_take_the_place_of_the_test_images(given_images):
    """Other test images change nothing, other training images do."""
    data = load_data()
    plain = trained_small(validate=True)
    assert plain["images"].endswith(
        "; test part replaced by 144 held-out training images (split seed 0)"
    )
    given_images(replace(data, x_test=1 - data.x_test[:7], y_test=data.y_test[:7][::-1].copy()))
    assert trained_small(validate=True) == plain
    assert trained_small()["accuracy"] != plain["accuracy"]


def test_held_out_images_are_not_mirrored():
    images = paper_networks.single_precision("digits", None, validate=True, mirrored=True)
    held_out = load_data().validation_split(0.1, seed=0)
    assert len(images.y_train) == 2 * len(held_out.y_train)
    assert_allclose(images.x_test, held_out.x_test)
    assert images.note == f"{held_out.note}; training images also mirrored"
    assert images.x_train.dtype == images.x_test.dtype == np.float32
    assert trained_small(mirrored=True)["losses"] != trained_small()["losses"]


def test_pixels_are_read_in_the_order_of_the_architecture(monkeypatch, given_images):
    """A network that takes them in another order is trained on images that are reordered."""
    quadtree = replace(DIGITS, quadtree=True)
    monkeypatch.setitem(implicit.ARCHITECTURES, "quadtree", quadtree)
    found = trained_small(architecture="quadtree")
    assert found["losses"] != trained_small()["losses"]
    order, data = quadtree.pixels((8, 8)), load_data()
    given_images(replace(data, x_train=data.x_train[:, order], x_test=data.x_test[:, order]))
    assert trained_small() == found


def test_all_networks_unless_some_are_named():
    assert implicit.Implicit().chosen == tuple(DIGITS.rows)
    assert implicit.Implicit(data="mnist").chosen == tuple(MNIST.rows)
    assert implicit.Implicit(data="mnist", architecture="mnist-shift").name == "mnist-shift"


def test_mean_and_spread():
    assert implicit.mean_spread([90.0]) == "90.00"
    assert implicit.mean_spread([90.0, 92.0, 91.0], 1) == "91.0 +- 1.0 (90.0 to 92.0)"


WITHOUT_QISKIT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("qiskit"):
            raise ModuleNotFoundError(f"no module named {name}")

sys.meta_path.insert(0, Missing())
from mpodis.cli import main
main()
"""


def test_the_command_needs_no_qiskit(tmp_path):
    words = ["reproduce", "table3", "--seeds", "1", "--workers", "1", "--quiet"]
    words += ["--run-dir", str(tmp_path / "run")]
    words += ["--set", "epochs=1", "--set", "rows=product", "--set", "gates=none"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_QISKIT, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["network"] for row in record["rows"]] == ["product"] * 3
    assert (tmp_path / "run" / "report.html").exists()


# --- healing


def test_every_way_has_its_counts(ran):
    found = rows(ran("healing"))
    assert list(found["method"]) == ["compressed", "circuits", "plain MPO", "low rank", "Monarch"]
    counts = found.set_index("method")["parameters"]
    shapes = {"0": (64, 16), "2": (16, 8)}
    assert (found["dense"] == 64 * 16 + 16 * 8).all()
    sizes = healing.sizes_of(shapes, share=0.3, depth=1)
    assert counts["compressed"] <= 0.3 * found["dense"].iloc[0]
    assert counts["circuits"] <= sum(half for *_, half in sizes.values())
    assert (counts[["plain MPO", "low rank", "Monarch"]] >= counts["circuits"]).all()
    assert counts["circuits"] < counts["compressed"] + 6 * 2 * 20


def test_a_replacement_loses_something_and_training_does_no_harm(ran):
    found = rows(ran("healing"))
    assert found["original"].nunique() == 1
    before, healed = (found["original"] - found[when] for when in ("before", "healed"))
    assert (before > 1).all()
    assert ((healed > -2) & (healed < before + 2)).all()


def test_a_frame_changes_nothing(ran, networks):
    ran("healing")
    images = paper_networks.single_precision("digits", None, size=28)
    odd = replace(
        images,
        x_train=np.ascontiguousarray(images.x_train[:, :56]),
        x_test=np.ascontiguousarray(images.x_test[:, :56]),
        image_shape=(7, 8),
    )
    model = paper_networks.trained_dense(images, networks, 0, hidden=(16, 8)).float()
    first = torch.nn.Linear(56, 16)
    own = {"weight": model[0].weight[:, :56].detach(), "bias": model[0].bias.detach()}
    first.load_state_dict(own)
    model[0] = first
    framed = healing.Setting(odd, model, {}, 0).padded()
    assert framed.images.image_shape == (8, 8)
    with torch.no_grad():
        a = model(torch.from_numpy(odd.x_test))
        b = framed.model(torch.from_numpy(framed.images.x_test))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# --- trained


def test_gates_of_one_exponent_are_orthogonal_before_and_after(ran):
    found = rows(ran("trained")).query("question == 'depth'")
    cases = [("skew", 1), ("skew", 5), ("skew, cut", 5)]
    cases += [(f"triangular{name[4:]}", depth) for name, depth in cases]
    assert list(zip(found["gates"], found["depth"], strict=True)) == cases
    skew = found["gates"].str.startswith("skew")
    assert ((found["distance"] < 1e-5) == skew).all()
    assert ((found["trained_distance"] < 1e-5) == skew).all()
    by_gates = found.query("depth == 5").set_index("gates")
    # what is put at a cut has no parameters
    assert by_gates["parameters"]["skew, cut"] == by_gates["parameters"]["skew"]
    assert by_gates["first"]["skew, cut"] != by_gates["first"]["skew"]


def test_networks_of_the_draws_are_those_that_are_trained(ran):
    found = rows(ran("trained")).query("depth == 5").set_index(["question", "gates"])
    for draw, variant in (("skew, Haar", "skew"), ("triangular, normal 0.5", "triangular")):
        drawn, there = found.loc["draw", draw], found.loc["depth", variant]
        assert_allclose(*(row[trained.PLACES].astype(float) for row in (drawn, there)))


def test_what_is_left_of_gradients_is_the_ratio_of_geometric_means():
    norms = {1: (1.0, 4.0), 8: (0.01, 0.01)}
    made = [
        {"question": "draw", "gates": "skew", "depth": depth, "seed": seed}
        | dict.fromkeys(trained.PLACES, norm)
        for depth, each in norms.items()
        for seed, norm in enumerate(each)
    ]
    assert_allclose(trained.gained(pd.DataFrame(made)), [[0.005] * 3])


def test_an_explicit_start_has_the_accuracy_of_the_factorization(ran, networks):
    found, images = rows(ran("trained")), load_data("digits")
    model = network("digits", networks, 0)
    search = {"max_bond": 1, "init": "identity", "n_init": 1, "max_sweeps": 5, "seed": 0}
    whole = disentangle(model.mpo.to_mpo(), left=brickwall(6, 2), **search)
    layer = FactorizedLinear(whole.factorization, dtype=torch.float64)
    score = accuracy(replace_layer(model, "mpo", layer), images.x_test, images.y_test)
    first = found.query("gates == 'overlap' and step == 0")["accuracy"]
    assert_allclose(first, score, atol=1.01 * 100 / len(images.y_test))  # float32, not float64
    original = accuracy(model, images.x_test, images.y_test)
    whole = found.query("gates == 'as trained' and step == 0")["accuracy"]
    assert_allclose(whole, original, atol=0.3)


def test_starts_take_the_same_steps(ran):
    found = rows(ran("trained")).query("question == 'start'")
    for _, each in found.groupby("gates"):
        curves = each.pivot_table("accuracy", "step", "rate")
        assert curves.index.tolist() == [0, 2, 4]
        assert curves.loc[0].nunique() == 1
    sizes = found.groupby("gates")["parameters"].first().to_dict()
    gates = 2 * (5 * 6 + 2)
    assert sizes == {s: 650 + (24 + gates if s != "as trained" else 80) for s in trained.STARTS}


def test_random_starts_have_the_norm_of_the_layer(ran, networks):
    ran("trained")
    model = network("digits", networks, 0)
    layer = inside.beginning("random", model, load_data("digits"), depth=2, seed=0)
    assert_allclose(layer.weight().norm().item(), model.mpo.weight().norm().item())


# --- options


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

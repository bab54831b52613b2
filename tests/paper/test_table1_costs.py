"""The experiment `table1-costs`."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.paper import table1_costs
from mpodis.quantum.gate_costs import with_cost
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("table1-costs"))


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

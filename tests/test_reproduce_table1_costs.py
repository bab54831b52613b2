"""Table 1's cost columns: kinds of gates, what a device adds, and which counts are the paper's."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.paper import load_experiment, table1_costs
from mpodis.paper.by_pieces import run_experiment
from mpodis.quantum import gate_cost
from mpodis.quantum.gate_costs import with_cost

SMALL = table1_costs.Table1Costs(seeds=2, widths=(2, 3), depths=(1, 2, 5))
DEVICE = "FakeMontrealV2"


@pytest.fixture(scope="module", autouse=True)
def _device():
    pytest.importorskip("qiskit_ibm_runtime")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("costs") / "run"
    directory = JobDirectory.create(path, f"{REPRODUCE}table1-costs", SMALL)
    experiment = load_experiment("table1-costs")
    assert experiment is table1_costs.EXPERIMENT
    return run_experiment(experiment, SMALL, directory)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", list(table1_costs.KINDS))
def test_gates_are_of_their_kind(kind, width):
    for seed in range(4):
        gate = table1_costs._gate(width, kind, np.random.default_rng(seed))
        assert_allclose(gate @ gate.conj().T, np.eye(2**width), atol=1e-12)
        assert np.iscomplexobj(gate) == (kind == "U")
        if kind != "U":
            assert np.linalg.det(gate) == pytest.approx({"SO": 1, "O": -1}[kind])


def test_two_body_gates_take_two_or_three_cnots(record):
    for kind, cnots in (("SO", 2), ("O", 3), ("U", 3)):
        for piece in table1_costs._of(record, "gate", width=2, kind=kind):
            for costs in piece["costs"].values():
                assert [cost["two_qubit"] for cost in costs] == [cnots] * 4


@pytest.mark.parametrize("width", [3, 4, 5])
def test_a_complex_gate_takes_what_theory_says(width):
    # block ZXZ decomposition, arXiv 2403.13692, which Qiskit implements
    expected = 22 / 48 * 4**width - 1.5 * 2**width + 5 / 3
    gate = table1_costs._gate(width, "U", np.random.default_rng(0))
    assert gate_cost(gate, trials=1).two_qubit == pytest.approx(expected)


def test_brickwalls_take_no_swaps(record):
    walls = table1_costs._of(record, "brickwall")
    assert len(walls) == 2 * 3 * 3
    for piece in walls:
        cnots = {"SO": 2, "O": 3, "U": 3}[piece["kind"]] * piece["gates"]
        assert piece["gates"] == {1: 3, 2: 5, 5: 13}[piece["depth"]]
        for level in (1, 2, 3):
            assert piece["costs"]["logical"][level]["two_qubit"] == cnots
            assert piece["costs"][DEVICE][level]["two_qubit"] == cnots
        routed = piece["costs"][DEVICE][0]["two_qubit"] - cnots
        assert routed > 0  # the first six qubits of the device are no line
        assert routed % 3 == 0  # SWAPs


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_no_qubit_of_a_brickwall_moves(depth):
    circuit = random_circuit(brickwall(6, depth), seed=depth)
    compiled, cost = with_cost(circuit, backend=DEVICE, trials=1, seed=depth)
    assert cost.two_qubit == 2 * sum(place.width == 2 for place in circuit.ansatz.placements)
    assert compiled.layout.routing_permutation() == list(range(27))
    used = {
        tuple(sorted(compiled.find_bit(qubit).index for qubit in item.qubits))
        for item in compiled.data
        if len(item.qubits) == 2
    }
    assert len(used) == (5 if depth > 1 else 3)  # the bonds of six neighbours


def _record(counts):
    """One seed of "O" and "U"; counts(width, kind, level, backend) -> (one, two)."""
    pieces = {}
    for width in (2, 3):
        for kind in ("O", "U"):
            costs = {
                backend: [
                    dict(
                        zip(
                            ("one_qubit", "two_qubit"),
                            counts(width, kind, level, backend),
                            strict=True,
                        )
                    )
                    for level in table1_costs.LEVELS
                ]
                for backend in table1_costs.PAPER
            }
            name = f"{width}{kind}"
            pieces[name] = {"what": "gate", "width": width, "kind": kind, "costs": costs}
    return {"options": {"widths": [2, 3], "kinds": ["O", "U"]}, "pieces": pieces}


def test_the_counts_of_the_paper_are_found():
    def counts(width, kind, level, backend):
        one, two = table1_costs.PAPER[backend][width]
        return (one, two) if (kind, level) == ("U", 2) else (2 * one, 3 * two)

    record = _record(counts)
    for backend in table1_costs.PAPER:
        assert table1_costs.nearest(record, backend) == ("U", 2, 0.0)
        assert table1_costs.distance(record, backend, "O", 2) == pytest.approx(np.log(6) / 2)
        assert table1_costs.distance(record, backend, "O", 2, "two_qubit") == pytest.approx(
            np.log(3)
        )


def test_spreads_are_shown_where_there_are_any():
    assert table1_costs._spread([1868, 1868]) == "1,868"
    assert table1_costs._spread([3, 1, 2000]) == "3 (1 to 2,000)"
    assert table1_costs._spread([36, 37]) == "36.5 (36 to 37)"


def test_tables_figure_and_finding(record):
    tables = table1_costs.EXPERIMENT.tables(record)
    assert [len(table.rows) for table in tables] == [6, 6, 9]
    assert tables[0].rows[0] == ("2-body", "real, det +1", *["6 / 2"] * 4, "8 / 3")
    assert tables[1].rows[-1][-1] == "174 / 44"
    for panel in table1_costs.EXPERIMENT.panels:
        figure, ax = plt.subplots()
        panel.draw(record, ax)
        assert ax.has_data()
        plt.close(figure)
    assert "CNOTs: 2 (real, det +1); 3 (real, det -1); 3 (complex)" in record["finding"]
    assert (
        "none takes SWAPs on FakeMontrealV2 at the levels 1, 2, 3; 18 at level 0 do"
        in (record["finding"])
    )
    assert record["data"] is None
    assert record["command"].startswith("mpodis reproduce table1-costs --seeds 2 --set widths=2,3")


def test_wrong_options():
    with pytest.raises(ValueError, match="kind 'SU' is not known; use SO, O, U"):
        replace(SMALL, kinds=("SU",))
    with pytest.raises(ValueError, match=r"depths=\(0, 2\) must name numbers of 1 or more"):
        replace(SMALL, depths=(0, 2))
    with pytest.raises(ValueError, match="experiment 'table1_costs' is not known"):
        load_experiment("table1_costs")

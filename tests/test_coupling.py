"""Brickwalls of coupling maps: colours and lines by properties, compilation by dense algebra."""

import itertools

import networkx as nx
import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import CouplingMap

from mpodis import (
    Ansatz,
    Placement,
    brickwall,
    compile_state,
    compile_unitary,
    coupling_brickwall,
    coupling_line,
    evolution,
    pauli_chain,
    random_circuit,
)
from mpodis.circuit import embed

GRID = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]


def pairs(layers):
    return [p.wires for layer in layers for p in layer if p.width == 2]


@pytest.mark.parametrize(
    ("graph", "colours"),
    [
        (nx.path_graph(7), 2),
        (nx.cycle_graph(7), 3),
        (nx.complete_graph(6), None),
        (nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 5)), 4),
        (nx.Graph(list(CouplingMap.from_heavy_hex(5).get_edges())), 3),
        *((nx.complete_bipartite_graph(3, k), k) for k in (3, 5)),
        *((nx.gnp_random_graph(12, 0.5, seed=k), None) for k in range(4)),
    ],
)
def test_every_pair_meets_once_in_as_few_layers_as_there_can_be(graph, colours):
    edges = sorted(tuple(sorted(edge)) for edge in graph.edges)
    most = max(degree for _, degree in graph.degree)
    whole = coupling_brickwall(graph, 3 * most)
    period = next(t for t in range(1, 3 * most) if whole.layers[t:] == whole.layers[:-t])
    assert sorted(pairs(whole.layers[:period])) == edges  # an `Ansatz` has no overlaps
    assert period == colours if colours else most <= period <= most + 2
    assert {wire for place in whole.placements for wire in place.wires} == set(graph)


def test_on_a_line_it_is_the_ordinary_brickwall():
    for n in (2, 5, 6):
        line = CouplingMap.from_line(n)
        assert coupling_brickwall(line, 4, group="U") == brickwall(n, 4, group="U", fill=False)


def test_wires_follow_the_qubits_that_are_chosen_and_none_is_without_a_gate():
    found = coupling_brickwall([(7, 3), (3, 9), (9, 1), (1, 7), (5, 1)], 1, qubits=(9, 1, 3))
    assert [place.wires for place in found.placements] == [(0, 1), (2,)]


def test_all_forms_of_a_map_are_the_same():
    device = GenericBackendV2(6, coupling_map=GRID, seed=0)
    forms = (GRID, CouplingMap(GRID), device, nx.Graph(GRID), [edge[::-1] for edge in GRID])
    assert len({coupling_brickwall(form, 5) for form in forms}) == 1


@pytest.mark.parametrize("n", [2, 9, 20, 45])
def test_a_line_runs_through_connected_qubits(n):
    graph = nx.Graph(list(CouplingMap.from_heavy_hex(7).get_edges()))
    line = coupling_line(graph, n)
    assert len(set(line)) == n
    assert all(graph.has_edge(a, b) for a, b in itertools.pairwise(line))


def test_a_line_on_a_grid_fills_a_block():
    grid = nx.convert_node_labels_to_integers(nx.grid_2d_graph(5, 5))
    for n, edges in ((4, 4), (6, 7), (9, 12), (25, 40)):
        assert grid.subgraph(coupling_line(grid, n)).number_of_edges() == edges


@pytest.mark.parametrize(
    "edges", [[*GRID[:-1], (5, 6)], nx.star_graph(4).edges, nx.cycle_graph(5).edges]
)
def test_gates_of_idle_wires_become_parts_of_those_of_a_deeper_circuit(edges):
    edges = list(edges)
    for depth in (1, 2):
        small = random_circuit(coupling_brickwall(edges, depth, group="U"), seed=depth)
        assert depth > 1 or 1 in {place.width for place in small.ansatz.placements}
        for side, circuit in (("left", small), ("right", small.adjoint())):
            for deeper in range(depth, 5):
                ansatz = coupling_brickwall(edges, deeper, group="U")
                ansatz = ansatz.reversed() if side == "right" else ansatz
                found = embed(circuit, ansatz, outermost=side)
                assert found.ansatz == ansatz
                assert_allclose(found.to_dense(), circuit.to_dense(), atol=1e-13)


def test_a_gate_becomes_a_part_of_a_wide_gate_with_those_after_it():
    one = Ansatz(3, ((Placement((2,)),), (Placement((2, 1)),), (Placement((0, 1)),)), "U")
    wide = Ansatz(3, ((Placement((1, 2)),), (Placement((0, 1)),), (Placement((2, 0, 1)),)), "U")
    circuit = random_circuit(one, seed=0)
    assert_allclose(embed(circuit, wide).to_dense(), circuit.to_dense(), atol=1e-13)
    fixed = Ansatz(3, ((Placement((1, 2), "CNOT"),),), "U")
    with pytest.raises(ValueError, match=r"no placement for a gate on wires \(2,\)"):
        embed(circuit, fixed)


@pytest.mark.no_cover  # long; searches with the same lines are traced
@pytest.mark.parametrize("engine", ["dense", "boundary"])
def test_a_compiled_circuit_of_a_grid_against_dense_algebra(engine):
    target = evolution(pauli_chain(6, ZZ=1.0, X=0.75), 0.3)
    ansatz = coupling_brickwall(GRID, 4, qubits=6, group="U")
    assert not ansatz.is_local
    unitary = target.mpo.to_dense()
    found = compile_unitary(target, ansatz=ansatz, engine=engine, n_init=1, tol=0.1)
    c = np.vdot(unitary, found.circuit.to_dense().T) / 64
    assert_allclose(found.loss, 1 - abs(c), rtol=1e-6, atol=1e-11)
    assert found.loss < 0.02
    psi = unitary[:, 0] / np.linalg.norm(unitary[:, 0])
    state = compile_state(psi, ansatz=ansatz, engine=engine, n_init=1, tol=0.1)
    c = np.vdot(psi, state.circuit.to_dense()[0])
    assert_allclose(state.loss, 1 - abs(c), rtol=1e-6, atol=1e-11)
    assert state.loss < 1e-3


@pytest.mark.parametrize(
    ("coupling_map", "qubits", "error", "text"),
    [
        (nx.grid_2d_graph(2, 2), None, TypeError, "Graph is not read as a coupling map"),
        (3, None, TypeError, "int is not read as a coupling map"),
        ([], None, ValueError, "connects no qubits"),
        ([(0, 0)], None, ValueError, "connects qubit 0 with itself"),
        ([(0, 1, 2)], None, TypeError, r"\(0, 1, 2\) are 3 qubits, not 2"),
        (GRID, (4,), ValueError, r"qubits=\(4,\) is a single qubit.*brickwall\(1, depth, width=1"),
        (GRID, 1, ValueError, "a line of 1 qubits is not possible: it has 2 or more"),
        (GRID, (0, 1, 1), ValueError, "must be different qubits"),
        (GRID, (0, 1, 8), ValueError, r"\[8\] are not on the map"),
        (GRID, (0, 1, 5), ValueError, r"qubits \[5\] are not connected with qubit 0"),
        (GRID, 7, ValueError, "a line of 7 qubits is not possible"),
        (nx.star_graph(4), 4, ValueError, "no line of 4 qubits was found"),
    ],
)
def test_what_is_no_map_and_no_choice_of_qubits(coupling_map, qubits, error, text):
    with pytest.raises(error, match=text):
        coupling_brickwall(coupling_map, 2, qubits=qubits)

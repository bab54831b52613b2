"""What circuits, histories and options show of themselves: little text, and true numbers."""

import re
from functools import cache
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mpodis import brickwall, disentangle, from_spec, random_circuit
from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.options import DisentangleConfig, SearchOptions
from reference import random_matrix

CIRCUITS = {
    "brickwall": brickwall(6, 5),
    "named gates": from_spec("2b + CNOT + 3b + SWAP + CZ", 7),
    "apart": Ansatz(4, ((Placement((0, 2)), Placement((1, 3))), (Placement((3, 0), "ECR"),)), "U"),
    "without gates": Ansatz(3, ()),
    "large": brickwall(16, 32),
}


@cache
def run():
    return disentangle(random_matrix((8, 8)), depth=3, init="grown", n_init=2, max_sweeps=4)


def cells(html):
    """Rows of the first table."""
    table = ElementTree.fromstring(f"<div>{html}</div>").find(".//table")
    return [[cell.text for cell in row] for row in table.iter("tr")]


@pytest.mark.parametrize("name", CIRCUITS)
def test_a_circuit_shows_its_size_and_its_gates(name):
    ansatz = CIRCUITS[name]
    circuit = random_circuit(ansatz, seed=0)
    assert repr(ansatz) == f"Ansatz({ansatz})"
    assert repr(circuit) == f"Circuit({ansatz})"
    html = circuit._repr_html_()
    assert html == ansatz._repr_html_()
    assert len(html) < 3000
    rows = dict(cells(html)[1:])
    assert (rows["wires"], rows["layers"]) == (str(ansatz.n), str(ansatz.depth))
    assert rows["parameters"] == f"{ansatz.n_parameters:,}"
    svg = re.search(r"<svg.*</svg>", html)
    if not ansatz.placements or name == "large":
        assert svg is None
        return
    root = ElementTree.fromstring(svg[0])
    paths = [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert paths[0].count("M") == ansatz.n  # the wires
    boxes = sum(path.count("z") for path in paths)
    symbols = sum(place.fixed in ("CNOT", "CZ", "SWAP") for place in ansatz.placements)
    assert boxes + symbols == len(ansatz.placements)


def test_a_history_shows_where_each_initial_guess_ended():
    history = run().history
    rows = cells(history._repr_html_())[1:]
    assert len(rows) == len({(r["stage"], r["init"]) for r in history.records})
    assert sum(int(row[2]) for row in rows) == len(history)
    last = history.records[-1]
    assert str(history).splitlines()[-1].split()[0] == str(last["depth"])
    assert f"{last['overlap']:.4g}" in rows[-1]
    assert "activations" not in str(history)  # all NaN
    assert repr(history) == str(history)
    many = type(history)(
        tuple(record | {"init": k} for k, record in enumerate(history.records[:20]))
    )
    assert len(cells(many._repr_html_())) == 1 + 12
    assert "8 earlier rows are left out" in str(many)


def test_a_history_is_a_dataframe_with_all_records():
    history = run().history
    frame = history.to_dataframe()
    assert frame.columns.tolist() == list(history.records[0])
    for name in ("stage", "phase", "overlap", "activations"):
        assert_array_equal(frame[name].to_numpy(), history.column(name))
    assert len(history.to_csv().splitlines()) == 1 + len(history)
    assert type(history)(()).to_dataframe().empty


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(),
        SearchOptions(max_bond=2, tol=1e-6, environment_bond=(8, 16)),
        DisentangleConfig(file="w.npy", depth=3),
    ],
)
def test_options_show_what_differs_from_the_defaults(options):
    names = {cls.__name__: cls for cls in (SearchOptions, DisentangleConfig)}
    assert eval(repr(options), names) == options
    assert len(repr(options)) < 100
    shown = {name: value for name, value, _ in cells(options._repr_html_())[1:]}
    assert shown == {name: str(value) for name, value in options.changed().items()}
    default = np.sum([f"<td>{name}</td>" in options._repr_html_() for name in options.to_dict()])
    assert default == len(options.to_dict())

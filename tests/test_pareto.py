"""`pareto`: families, the front, stored pieces, tables and figures."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import (
    Ansatz,
    Circuit,
    Factorization,
    ParetoFront,
    ParetoPoint,
    cnot_count,
    compress,
    mpo_from_tensors,
    pareto,
)
from mpodis.jobs.pareto_page import best_within
from mpodis.jobs.pareto_page import tables as pareto_tables
from mpodis.plots import plot_pareto
from mpodis.resynthesis import FAMILIES
from mpodis.resynthesis.cnot_search import CnotSearch
from mpodis.resynthesis.cnots_only import cnots_only
from mpodis.resynthesis.front import points_from_arrays, points_to_arrays, undominated
from mpodis.resynthesis.task import Task
from reference import (
    CNOT,
    circuit_matrix,
    embed,
    overlap,
    random_covariance,
    random_matrix,
    weighted_distance,
)

MATRIX = random_matrix((8, 8), seed=1)
TINY = {
    "depths": (2,),
    "n_init": 1,
    "rounds": 1,
    "trials": 1,
    "sweeps": 2,
    "beam": 2,
    "max_sweeps": 4,
}


def tiny(matrix=MATRIX, **options):
    return pareto(compress(matrix), **(TINY | options))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All families, with a directory."""
    folder = tmp_path_factory.mktemp("pareto") / "run"
    return tiny(run_dir=folder), folder


def point(cnots, loss, family="x"):
    circuit = Circuit(Ansatz(1, ()), ())
    given = Factorization(
        circuit, mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1)]), circuit, (2, 2)
    )
    return ParetoPoint(cnots, family, loss, 1 - loss, 1.0, np.nan, given)


# --- the front


def test_the_front_holds_the_undominated_points():
    points = [
        point(4, 0.3),
        point(2, 0.5, "y"),
        point(6, 0.3),
        point(0, 0.9),
        point(4, 0.4, "y"),
        point(8, 0.1),
    ]
    front = ParetoFront(tuple(points), "overlap")
    assert [(p.cnots, p.loss) for p in front.front] == [(0, 0.9), (2, 0.5), (4, 0.3), (8, 0.1)]
    for one in points:
        better = [p for p in points if p.cnots <= one.cnots and p.loss <= one.loss and p is not one]
        assert front.is_dominated(one) == bool(better)
    assert front.families == ("x", "y")
    assert front.at(5).loss == 0.3
    assert front.at(5, family="y").loss == 0.4
    assert front.at(1, family="y") is None
    assert undominated([]) == []
    rows = front.to_dict()["points"]
    assert [row["dominated"] for row in rows] == [front.is_dominated(p) for p in points]
    table = front.table()
    assert table.notes == ("on the front: x 3 of 4, y 1 of 2",)
    assert table.columns == ["CNOTs", "overlap f", "bound", "family"]  # no inputs are known
    assert [row[0] for row in table.rows] == ["0", "2", "4", "8"]


def test_points_survive_as_arrays_and_json(found):
    points = found[0].points
    arrays, rows = points_to_arrays(points)
    back = points_from_arrays(arrays, json.loads(json.dumps(rows)))
    for a, b in zip(points, back, strict=True):
        assert a.to_dict() == pytest.approx(b.to_dict(), nan_ok=True)
        np.testing.assert_array_equal(
            a.factorization.padded_to_dense(), b.factorization.padded_to_dense()
        )
        assert a.factorization.left.ansatz == b.factorization.left.ansatz


# --- all families


def test_figures_of_points_are_those_of_their_factorizations(found):
    front = found[0]
    assert set(front.families) == set(FAMILIES)
    for p in front.points:
        given = p.factorization
        assert cnot_count(given) == p.cnots
        assert_allclose(p.overlap, overlap(MATRIX, given.to_dense()), rtol=1e-9)
        assert_allclose(p.loss, 1 - p.overlap, atol=1e-12)
        assert p.overlap <= p.bound + 1e-10
    assert len({(p.family, p.cnots) for p in front.points}) == len(front.points)


def test_families_consist_of_the_gates_they_name(found):
    for p in found[0].points:
        sides = (p.factorization.left, p.factorization.right)
        gates = [g for s in sides for g in s.gates]
        pairs = [q for s in sides for q in s.ansatz.placements if q.width == 2]
        if p.family == "scaffold":
            assert {q.fixed for q in pairs} == {"CNOT"}
            assert p.cnots == len(pairs)
        if p.family == "CNOTs alone":
            assert p.cnots == len(gates)
            for gate in gates:
                assert np.abs(gate @ gate - np.eye(4)).max() == 0
        if p.family == "SO(4)":
            assert p.cnots <= 2 * len(pairs)
        if p.family in ("SO(4)", "pruned", "searched"):
            assert {s.ansatz.group for s in sides} == {"SO"}


def test_pruned_and_searched_circuits_are_never_worse_than_brickwalls(found):
    front = found[0]
    for wall in (p for p in front.points if p.family == "SO(4)"):
        assert front.at(wall.cnots).loss <= wall.loss
    losses = [p.loss for p in front.front]
    assert losses == sorted(losses, reverse=True)
    assert front.front[0].cnots == 0
    pruned = [p for p in front.front if p.family in ("pruned", "searched")]
    assert len(pruned) >= len(front.front) // 2


def test_families_alone():
    walls = tiny(families="O(4)")
    assert set(walls.families) == {"O(4)"}
    for p in walls.points:
        assert p.factorization.left.ansatz.group == "O"
    searched = tiny(families=["searched"], max_cnots=3)
    assert set(searched.families) == {"searched"}
    assert max(p.cnots for p in searched.points) <= 3
    deeper = tiny(families="SO(4)", depths=(2, 1))
    assert [p.cnots for p in deeper.points] == [4, 8]
    assert deeper.points[1].loss <= deeper.points[0].loss
    pruned = tiny(families=["pruned"], depths=[1])
    assert set(pruned.families) == {"SO(4)", "pruned"}


def test_wires_that_differ_and_operators_without_pairs():
    wide = tiny(random_matrix((8, 2)), families=("SO(4)", "scaffold", "CNOTs alone"))
    assert {p.factorization.right.n for p in wide.points} == {1}
    single = tiny(random_matrix((2, 1)))
    assert {p.cnots for p in single.points} == {0}
    assert_allclose(max(p.overlap for p in single.points), 1)


def test_the_activations():
    shape = (7, 6)
    matrix, metric = random_matrix(shape), random_covariance(7)
    families = ("SO(4)", "CNOTs alone", "searched")
    options = {"families": families, "depths": (1,), "max_cnots": 4}
    front = tiny(matrix, objective="activations", covariance=metric, **options)
    for p in front.points:
        lost = weighted_distance(matrix, p.factorization.to_dense(), metric)
        assert_allclose(p.loss, lost, rtol=1e-6)
        assert_allclose(p.activation_error**2, lost, rtol=1e-6)
    assert set(front.families) == set(families)
    assert "act. error" in front.table().columns


# --- CNOTs alone


def test_a_hidden_circuit_of_cnots_is_found():
    product = np.kron(np.kron(random_matrix((2, 2)), random_matrix((2, 2), seed=1)), np.eye(2))
    backward = np.eye(4)[[0, 3, 2, 1]]
    hidden = embed(CNOT, (0, 1), 3) @ embed(backward, (1, 2), 3)
    matrix = hidden @ product @ embed(backward, (0, 1), 3)
    task = Task.build(compress(matrix), max_bond=1)
    points = cnots_only(task, "alone", max_cnots=3, beam=8)
    assert [p.cnots for p in points] == [0, 1, 2, 3]
    assert points[-1].overlap > 1 - 1e-9
    left = circuit_matrix(points[-1].factorization.left)
    assert set(np.unique(left)) == {0, 1}


def test_the_search_for_cnots_alone_ends_where_nothing_is_gained():
    matrix = np.kron(np.diag([1.0, 2.0]), np.diag([1.0, 3.0]))
    task = Task.build(compress(matrix), max_bond=1)
    points = cnots_only(task, "alone", max_cnots=99, beam=50)
    # there are 6 permutations a side, so that three CNOTs each reach all of them
    assert len(points) <= 7
    assert points[0].overlap == pytest.approx(1)


# --- stored pieces


def files(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file.name != "lock"}


def test_an_interrupted_run_continues(found, tmp_path, monkeypatch):
    whole, folder = found
    before = files(folder)
    assert [p.loss for p in tiny(run_dir=folder).points] == [p.loss for p in whole.points]
    assert files(folder) == before  # nothing was done again

    remove = CnotSearch.remove

    def dies(self, family, **options):
        if family == "searched":
            raise KeyboardInterrupt
        return remove(self, family, **options)

    monkeypatch.setattr(CnotSearch, "remove", dies)
    with pytest.raises(KeyboardInterrupt):
        tiny(run_dir=tmp_path / "run")
    monkeypatch.setattr(CnotSearch, "remove", remove)
    there = files(tmp_path / "run")
    assert "search-1-up.safetensors" in there
    assert "search-1-down.safetensors" not in there
    again = tiny(run_dir=tmp_path / "run")
    assert there.items() <= files(tmp_path / "run").items()
    assert [p.loss for p in again.points] == [p.loss for p in whole.points]


def test_a_directory_of_another_call_is_refused(found):
    with pytest.raises(ValueError, match="holds another run of pareto: trials differs"):
        tiny(run_dir=found[1], trials=2)
    with pytest.raises(ValueError, match="operator differs"):
        tiny(2 * MATRIX, run_dir=found[1])
    assert files(found[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ("brick",)}, r"family 'brick' is not known; use some of SO\(4\)"),
        ({"families": ()}, "families is empty; use some of"),
        ({"depths": ()}, "depths is empty; give at least one"),
        ({"depths": (0,)}, "depth=0 must be a whole number, 1 or more"),
        ({"max_cnots": -1}, "max_cnots=-1 must be a whole number, 0 or more"),
        ({"rounds": 0}, "rounds=0 must be"),
        ({"beam": 1.5}, "beam=1.5 must be"),
        ({"objective": "loss"}, "objective='loss' is not known"),
    ],
)
def test_wrong_options_leave_no_directory(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tiny(run_dir=tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


# --- tables and the figure


def test_tables_compare_the_families_at_equal_cnots(tmp_path):
    rows = [
        point(0, 0.9).to_dict() | {"dominated": False},
        point(8, 0.2, "y").to_dict() | {"dominated": False},
        point(8, 0.5).to_dict() | {"dominated": True},
    ]
    results = {"objective": "overlap", "points": rows, "name": "w", "compression": "none"}
    front, families = pareto_tables(results)
    assert [row[0] for row in front.rows] == ["0", "8"]
    assert families.columns == ("CNOTs", "front", "x", "y")
    assert families.rows[0] == ("0", pytest.approx(0.1), pytest.approx(0.1), None)
    assert families.rows[-1] == ("8", *(pytest.approx(v) for v in (0.8, 0.5, 0.8)))
    assert best_within(rows, 7, "overlap") == pytest.approx(0.1)
    assert best_within(rows, 7, "overlap", "y") is None


def test_the_figure_shows_points_front_and_bound(found):
    rows = found[0].to_dict()["points"]
    ax = plot_pareto(rows, ax=plt.subplots()[1])
    lines = {line.get_label(): line for line in ax.get_lines()}
    front = found[0].front
    assert_allclose(lines["front"].get_xdata(), [p.cnots for p in front])
    assert_allclose(lines["front"].get_ydata(), [p.overlap for p in front])
    assert_allclose(lines["von Neumann bound"].get_ydata(), [p.bound for p in front])
    assert lines["von Neumann bound"].get_linestyle() == ":"
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["front", "von Neumann bound", *found[0].families]
    drawn = sum(len(x.get_xdata()) for x in ax.get_lines() if x.get_linestyle() == "None")
    assert drawn == len(rows)
    colours = {lines[name].get_color() for name in found[0].families}
    assert len(colours) == len(found[0].families)
    errors = [row | {"activation_error": 0.1} for row in rows]
    other = plot_pareto(errors, value="activation_error")
    assert other.get_ylabel() == "relative error of the activations"

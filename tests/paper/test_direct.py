"""The experiment `direct`."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import compress
from mpodis.measures import entanglement
from mpodis.nn import accuracy
from mpodis.paper import direct
from mpodis.paper.layers import trained_layer
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("direct"))


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

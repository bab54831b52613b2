"""The experiment `healing`."""

from dataclasses import replace

import numpy as np
import torch

from mpodis.paper import healing
from mpodis.paper import networks as paper_networks
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("healing"))


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

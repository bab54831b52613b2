"""The experiment `resynthesis`."""

import numpy as np

from mpodis.paper import resynthesis
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("resynthesis"))


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

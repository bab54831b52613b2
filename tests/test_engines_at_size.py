"""What the engines keep at sizes that no dense matrix reaches: accuracy, memory, no falls."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.disentangling import disentangle
from mpodis.environments import BoundaryEnvironments, TransverseEnvironments, true_overlap
from mpodis.gates import polar
from mpodis.mpo import truncate
from mpodis.sites import left_canonical, mpo_from_tensors, site_tensors, spread_norm
from mpodis.targets import planted_mpo
from reference import random_cores

UPDATES = dict.fromkeys(("left", "right"), lambda e, g: polar(e, group="SO"))


def unit(cores):
    return spread_norm(left_canonical(cores)[0], 0.0)


def near_identity(kind, n, depth, *, bond=4, seed=1, **options):
    """An engine on a Gaussian MPO, its product core and circuits near the identity."""
    legs, ansatz = ((2, 2),) * n, brickwall(n, depth, fill=False)
    target = unit(random_cores(legs, bond, seed=seed))
    core = unit(site_tensors(truncate(mpo_from_tensors(target), max_bond=1).mpo))
    gates = [random_circuit(a, seed=seed, scale=0.05).gates for a in (ansatz, ansatz.reversed())]
    engine = kind(target, legs, ansatz, ansatz.reversed(), **options)
    engine.set(gates[0], core, gates[1])
    return engine


@pytest.mark.no_cover  # large; the engine's own tests are traced
@pytest.mark.parametrize(("n", "depth"), [(32, 6), (24, 8)])
def test_truncated_environments_are_accurate_where_circuits_are_optimised(n, depth):
    boundary = near_identity(BoundaryEnvironments, n, depth, max_bond=32)
    for _ in range(3):
        boundary.sweep(UPDATES, core=True)
    exact = near_identity(TransverseEnvironments, n, depth)
    exact.set(boundary.left, boundary.core, boundary.right)
    found, expected = boundary.gradient(), exact.gradient()
    for side in ("left", "right"):
        pairs = list(zip(getattr(found, side), getattr(expected, side), strict=True))
        off = np.sqrt(sum(np.linalg.norm(a - b) ** 2 for a, b in pairs))
        size = np.sqrt(sum(np.linalg.norm(b) ** 2 for _, b in pairs))
        assert off <= 2e-3 * size


@pytest.mark.no_cover  # large; the engine's own tests are traced
@pytest.mark.parametrize(("bond", "schedule"), [(4, 16), (8, (16, 32))])
def test_no_true_overlap_falls_between_checks(bond, schedule):
    mpo = mpo_from_tensors(unit(random_cores(((2, 2),) * 20, bond, seed=2)))
    options = {"engine": "boundary", "environment_bond": schedule, "n_init": 1, "max_sweeps": 25}
    found = disentangle(mpo, left=brickwall(20, 8, fill=False), **options)
    truth = found.history.column("true_overlap")
    truth = truth[np.isfinite(truth)]
    assert len(truth) >= 6
    assert min(np.diff(truth)) > -1e-4
    assert truth[-1] > 2 * truth[0] > 0
    assert abs(found.overlap - true_overlap(found.factorization, mpo).value) < 1e-3


@pytest.mark.no_cover  # large; the engine's own tests are traced
def test_a_planted_operator_of_32_sites_is_found_again():
    """Where no deep optimum hides: gates and core together, from near the identity."""
    mpo, ansatz = planted_mpo(32, 2, seed=3), brickwall(32, 2, fill=False)
    found = disentangle(mpo, left=ansatz, n_init=2, max_sweeps=60, method="sweeps")
    assert found.options.engine in ("transverse", "tree")
    assert found.overlap > 0.99
    assert max(found.entropies_after) < 0.2 < max(found.entropies_before)


MEASURE = r"""
import re, sys
from pathlib import Path
import numpy as np
from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.environments import EngineOptions, build_engine, choose
from mpodis.gates import polar
from mpodis.sites import left_canonical, spread_norm

name, (n, depth, bond, max_bond, environment_bond) = sys.argv[1], map(int, sys.argv[2:])
rng = np.random.default_rng(0)

def cores(chi):
    bonds = [1, *[min(chi, 4**k, 4 ** (n - k)) for k in range(1, n)], 1]
    found = [rng.normal(size=(bonds[k], 2, 2, bonds[k + 1])) for k in range(n)]
    return spread_norm(left_canonical(found)[0], 0.0)

def resident():  # the peak; that of getrusage begins with the parent's
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])

legs, left = ((2, 2),) * n, brickwall(n, depth)
target, core = cores(bond), cores(max_bond)
options = EngineOptions(environment_bond=environment_bond)
predicted = choose(
    legs, left, left.reversed(), target_bonds=[c.shape[3] for c in target[:-1]],
    max_bond=max_bond, complex=False, options=options, engine=name,
).bytes
circuits = [random_circuit(a, seed=k, scale=0.05) for k, a in enumerate((left, left.reversed()))]
np.linalg.svd(np.ones((64, 64)) @ np.ones((64, 64)))  # what BLAS takes once is not the engine's
before = resident()
engine = build_engine(name, target, legs, left, left.reversed(), options=options)
engine.set(circuits[0].gates, core, circuits[1].gates)
for _ in range(2):
    engine.sweep(dict.fromkeys(("left", "right"), lambda e, g: polar(e, group="SO")), core=True)
engine.gradient()
print((resident() - before) / predicted)
"""


@pytest.mark.parametrize(
    "instance",
    [
        ("dense", 10, 4, 4, 1, 16),
        ("dense", 11, 2, 8, 2, 16),
        ("transverse", 10, 8, 4, 2, 16),
        ("tree", 10, 14, 4, 1, 16),
        ("boundary", 24, 8, 4, 1, 64),
        ("boundary", 32, 16, 8, 1, 32),
    ],
    ids=lambda x: "-".join(map(str, x)),
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc on this system")
def test_resident_memory_stays_within_what_the_chooser_predicts(instance):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, instance)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.2 < float(done.stdout) < 1.5

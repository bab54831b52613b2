"""HybridLinear against the dense twin, under every plan, and as a module like any other."""

import copy
import os
import pickle

import cotengra as ctg
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file, save_file
from torch import nn

from mpodis import Factorization, compress, disentangle, mpo_from_tensors
from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.circuit.spec import from_spec, segments_from_spec
from mpodis.nn import HybridLinear, MPOLinear
from mpodis.nn.hybrid_linear import LARGEST_DENSE_CORE, PLANS
from reference import random_matrix

QUBITS = ((2, 2),) * 4
FAR = Ansatz(6, ((Placement((0, 5)), Placement((2, 1))), (Placement((5, 1), "CNOT"),)))
CASES = {
    "square": (QUBITS, {"left": "2b + 2b", "right": "2b + 1b + CNOT"}),
    "no circuits": (QUBITS, {}),
    "left alone": (QUBITS, {"left": "3*2b"}),
    "right alone": (QUBITS, {"right": "1b + CNOT + 1b"}),
    "narrow": (((2, 1), *QUBITS, (2, 1)), {"left": "1b + CNOT + 2*2b", "right": "2b"}),
    "wide": (((1, 2), *QUBITS[:2]), {"left": "2b", "right": "3b + 2b"}),
    "other legs": (((7, 4), (2, 2), (2, 2), (7, 4)), {"left": "2*2b", "right": "2b"}),
    "qubits apart": (((2, 3), (5, 2), (2, 2)), {"left": "2*2b", "right": "2b + CNOT"}),
    "cropped": (((2, 2), (2, 2), (2, 2)), {"left": "2b", "right": "2b", "shape": (7, 5)}),
    "complex": (QUBITS, {"left": "2*2b", "right": "2b", "group": "U"}),
    "det -1 or +1": (QUBITS, {"left": "2b + 2b", "group": "O"}),
    "wires apart": (((2, 2),) * 6, {"left": FAR, "right": FAR.reversed()}),
    "fixed gates": (QUBITS, {"left": "1b + CZ", "right": "SWAP + 2b + ECR", "group": "U"}),
}
every_case = pytest.mark.parametrize("case", CASES)


def layer(case, plan=None, dtype=torch.float64, **options):
    legs, kinds = CASES[case]
    settings = {"bias": True, "seed": 0, "init_scale": 0.5, "batch_size": 8} | kinds | options
    return HybridLinear(legs, 2, plan=plan, dtype=dtype, **settings)


def batch(one, dtype=torch.float64):
    return torch.from_numpy(random_matrix((3, 4, one.inputs))).to(dtype)


def twin(one):
    """Q_L M' Q_R from its dense parts."""
    f = one.factorization()
    return f.left.to_dense() @ f.core_to_dense() @ f.right.to_dense()


@pytest.mark.parametrize("plan", [None, *PLANS])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@every_case
def test_forward_and_gradient_are_those_of_the_dense_matrix(case, plan, dtype, atol):
    one = layer(case, plan, dtype)
    x = batch(one, dtype)
    with torch.no_grad():
        one.bias.copy_(torch.arange(one.outputs))
    y = one(x)
    dense = x.to(one.core.site_tensors[0].dtype) @ one.weight() + one.bias
    assert y.shape == (3, 4, one.outputs)
    assert_allclose(y.detach(), dense.detach(), atol=atol)
    weights = torch.from_numpy(random_matrix(y.shape, seed=5)).to(y.dtype)
    found = torch.autograd.grad((y * weights).abs().sum(), one.parameters())
    wanted = torch.autograd.grad((dense * weights).abs().sum(), one.parameters())
    for a, b in zip(found, wanted, strict=True):
        assert_allclose(a, b, atol=atol * 30 * max(1, float(b.abs().max())))


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("other legs", "qubits apart")])
def test_the_weight_is_that_of_the_factorization(case):
    one = layer(case)
    rows, columns = one.inputs, one.outputs
    assert_allclose(one.weight().detach(), twin(one)[:rows, :columns], atol=1e-12)
    again = HybridLinear.from_factorization(
        one.factorization(), bias=one.bias.detach(), dtype=torch.float64
    )
    assert_allclose(again.weight().detach(), one.weight().detach(), atol=1e-12)
    counts = one.factorization().parameter_counts() | {"bias": columns}
    assert one.parameter_counts() == counts


def test_qubits_between_other_legs():
    """By hand: the circuit acts on the axes of the qubits, whatever stands between."""
    one = layer("qubits apart")
    q, core, r = one.left[0].to_dense(), one.core.weight(), one.right[0].to_dense()
    left = q.reshape(2, 2, 2, 2)  # (first, last; first, last)
    core = core.reshape(2, 5, 2, 3, 2, 2)
    r = r.reshape(2, 2, 2, 2)  # (middle, last; middle, last)
    wanted = torch.einsum("acde,dxefgh,ghij->axcfij", left, core, r).reshape(20, 12)
    assert_allclose(one.weight().detach(), wanted.detach(), atol=1e-12)


def test_an_explicit_solution_is_where_it_begins():
    matrix = random_matrix((8, 8))
    found = disentangle(compress(matrix).mpo, depth=2, n_init=1, max_sweeps=5)
    one = HybridLinear.from_factorization(found.factorization)
    x = torch.from_numpy(random_matrix((5, 8), seed=1)).float()
    assert_allclose(one(x).detach(), x.numpy() @ found.factorization.to_dense(), atol=1e-5)


def test_the_core_alone_is_an_mpo_layer():
    one = layer("no circuits")
    other = MPOLinear(QUBITS, 2, dtype=torch.float64, seed=0)
    assert torch.equal(one.weight(), other.weight())


@pytest.mark.parametrize("plan", ["matrix", "batch"])
@pytest.mark.parametrize("norm", [False, True])
def test_cut_circuits_are_layers_of_their_own(plan, norm):
    kinds = {"left": "2b | CNOT + 1b", "right": "2b + 2b | 1b | 2b", "norm": norm}
    one = layer("square", plan, **kinds).train()
    x = batch(one).reshape(-1, 16)
    y = x
    for k, part in enumerate((one.left[0], one.left[1], one.core, *one.right)):
        if k in (1, 4, 5):
            if norm:
                y = (y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()
            y = torch.relu(y)
        y = y @ (part.weight() if part is one.core else part.to_dense())
    assert_allclose(one(x).detach(), (y + one.bias).detach(), atol=1e-10)
    for use in (one.weight, one.factorization):
        with pytest.raises(ValueError, match="split by an activation function"):
            use()


def test_cuts_leave_the_placements_as_they_are():
    spec = "1b + CNOT + 2b"
    parts = segments_from_spec("1b + CNOT | 2b", 5)
    whole = from_spec(spec, 5).layers
    assert sum((part.layers for part in parts), ()) == whole
    assert len(segments_from_spec(spec, 5)) == 1


@pytest.mark.parametrize("plan", [None, *PLANS])
def test_circuits_that_begin_on_wire_1(plan):
    kinds = {"left": "CNOT + 2b", "right": "1b + 2b + CNOT"}
    one = layer("square", plan, parity=1, **kinds)
    for side, found in (("left", one.left), ("right", one.right)):
        assert [c.ansatz for c in found] == [from_spec(kinds[side], 4, parity=1)]
    assert [place.wires for place in one.left[0].ansatz.layers[0]] == [(1, 2)]
    x = batch(one)
    assert_allclose(one(x).detach(), x.numpy() @ twin(one), atol=1e-12)
    cut = layer("square", parity=1, left="CNOT | 2b")
    assert tuple(c.ansatz.layers[0] for c in cut.left) == from_spec("CNOT + 2b", 4, parity=1).layers


def test_the_plan_follows_the_batch():
    wide = ((2, 2),) * 5
    kinds = {"left": "2b", "right": "2b", "seed": 0}
    assert HybridLinear(wide, 1, batch_size=32, **kinds).plan == ("matrix", "matrix")
    assert HybridLinear(wide, 1, batch_size=31, **kinds).plan == ("batch", "batch")
    narrow = ((2, 1), *wide)
    assert HybridLinear(narrow, 1, batch_size=40, **kinds).plan == ("matrix", "batch")
    sites = ((2, 2),) * 13
    assert LARGEST_DENSE_CORE < 4**13
    assert HybridLinear(sites, 1, **kinds).plan == ("network", "network")


PATHS = {
    "default": lambda: None,
    "greedy": lambda: "greedy",
    "auto": lambda: "auto",
    "hyper": lambda: "hyper",
    "an optimizer": lambda: ctg.HyperOptimizer(
        methods=["greedy"], max_repeats=4, parallel=False, progbar=False
    ),
    "one after the other": lambda: [(0, 1)] * 17,
}


@pytest.mark.parametrize("name", PATHS)
def test_any_contraction_path_gives_the_same_layer(name):
    kinds = {"left": "2b + 2b + 2b", "right": "2b + 1b", "bias": False}
    one = layer("square", "network", optimize=PATHS[name](), **kinds)
    other = layer("square", "matrix", **kinds)
    assert one.path is not None
    assert len(one.path) == 7 + 6 + 4  # gates of the left, of the right, sites
    for rows in (1, 8, 30):
        x = torch.from_numpy(random_matrix((rows, 16), seed=rows))
        assert_allclose(one(x).detach(), other(x).detach(), atol=1e-12)
    again = layer("square", "network", optimize=one.path, **kinds)
    assert again.path == one.path


def test_the_path_is_searched_once_and_travels_with_copies(monkeypatch):
    one = layer("square", "network")
    x = batch(one)
    y = one(x)

    def search(*args, **options):
        raise AssertionError("a path is searched again")

    monkeypatch.setattr(ctg, "array_contract_path", search)
    monkeypatch.setattr(ctg, "array_contract_expression", search)
    for copied in (one, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301
        assert torch.equal(copied(x), y)
        assert copied(x[:1]).shape == (1, 4, 16)
        assert copied.path == one.path


def test_the_core_of_a_solution_counts_for_the_plan():
    """A wide core is multiplied as a matrix, the same one with small bonds is not."""
    legs = ((2, 2),) * 12
    plans = []
    for bond in (1, 40):
        tensors = [t.detach().numpy() for t in MPOLinear(legs, bond, seed=0).site_tensors]
        empty = random_circuit(brickwall(12, 1), seed=0)
        found = Factorization(empty, mpo_from_tensors(tensors), empty.adjoint(), (4096, 4096))
        plans.append(HybridLinear.from_factorization(found, batch_size=256).plan[0])
    assert plans[0] == "network"
    assert plans[1] != "network"


def test_layers_too_large_for_a_matrix():
    """A product of circuits that undo each other."""
    circuit = random_circuit(brickwall(13, 2), seed=0)
    one = HybridLinear(((2, 2),) * 13, 1, left=circuit, right=circuit.adjoint(), seed=0)
    with torch.no_grad():
        for core in one.core.site_tensors:
            core.copy_(torch.eye(2).reshape(1, 2, 2, 1))
    x = torch.randn(2, 2**13, generator=torch.Generator().manual_seed(0))
    assert_allclose(one(x).detach(), x, atol=1e-4)


# --- a module like any other


def test_state_and_copies():
    one, other = layer("square"), layer("square", seed=1)
    x = batch(one)
    assert not torch.allclose(one(x), other(x))
    other.load_state_dict(one.state_dict())
    other.left[0].load_state_dict(one.left[0].state_dict())
    assert torch.equal(one(x), other(x))
    copied = copy.deepcopy(one)
    with torch.no_grad():
        one.core.site_tensors[0].zero_()
    assert torch.equal(copied(x), other(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_in_and_out(dtype):
    one = layer("square", dtype=torch.float32)
    x = batch(one, torch.float32)
    y = one(x.to(dtype))
    assert y.dtype == dtype
    assert_allclose(y.float().detach(), one(x).detach(), atol=0.2)


@pytest.mark.no_cover  # torch's compiler; its lines are those of the plain layer
@pytest.mark.parametrize("plan", ["matrix", "batch"])
def test_it_compiles_without_breaks(plan):
    one = layer("narrow", plan)
    x = batch(one)
    compiled = torch.compile(one, backend="eager", fullgraph=True)
    assert_allclose(compiled(x).detach(), one(x).detach(), atol=1e-12)


def test_training_moves_gates_and_core():
    one = layer("square", dtype=torch.float32)
    before = [p.detach().clone() for p in one.parameters()]
    optimizer = torch.optim.Adam(one.parameters(), lr=0.01)
    x, wanted = batch(one, torch.float32), torch.ones(3, 4, 16)
    losses = []
    for _ in range(30):
        loss = nn.functional.mse_loss(one(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for old, new in zip(before, one.parameters(), strict=True):
        assert not torch.equal(old, new)


def _train_beside(rank, folder):
    """Two steps of half a batch each."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    one = layer("square")
    parallel = nn.parallel.DistributedDataParallel(one)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    x = batch(one).reshape(2, 6, 16)[rank]
    for _ in range(2):
        optimizer.zero_grad()
        parallel(x).square().mean().backward()
        optimizer.step()
    save_file(one.state_dict(), os.path.join(folder, f"{rank}.safetensors"))
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    torch.multiprocessing.spawn(_train_beside, (str(tmp_path),), nprocs=2)
    one = layer("square")
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        one(batch(one)).square().mean().backward()
        optimizer.step()
    for rank in (0, 1):
        state = load_file(tmp_path / f"{rank}.safetensors")
        for name, tensor in one.state_dict().items():
            assert_allclose(state[name], tensor, atol=1e-12)


# --- what cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"left": "2b + 3c"}, "cannot read the circuit spec '2b . 3c' at '3c'"),
        ({"left": "2b | 1c"}, "part 2 of '2b . 1c': cannot read the circuit spec"),
        ({"left": brickwall(3, 1)}, "the left circuit has 3 wires, but 4 of the left legs"),
        ({"right": "5b"}, "a gate on 5 wires does not fit a circuit of 4"),
        ({"plan": "fast"}, "plan='fast' is not known; use matrix, batch, network, or None"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number, 1 or more"),
        ({"left": "2b", "parity": 2}, "parity=2 must be 0 or 1, that of the first layer"),
        ({"plan": "network", "left": "1b | 1b"}, "splits these circuits; use plan='batch'"),
        ({"shape": (17, 4)}, r"shape=\(17, 4\) does not fit"),
        ({"plan": "network", "optimize": "fast"}, "optimize='fast' is not a preset of cotengra"),
        (
            {"plan": "network", "optimize": [(0, 1)] * 3},
            "optimize= has 3 steps; the 5 tensors of the network need 4",
        ),
        (
            {"plan": "network", "optimize": [(0, 1), (0, 4)]},
            r"a step \(0, 4\) where 4 tensors are left; give pairs of positions for the 5 tensors",
        ),
        ({"plan": "batch", "optimize": "hyper"}, "plan='batch' has none; leave it out or change"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        HybridLinear(QUBITS, 1, seed=0, **options)


def test_a_cnot_needs_two_qubits():
    with pytest.raises(ValueError, match="a gate on 2 wires does not fit"):
        HybridLinear(((7, 4), (2, 4)), 1, left="CNOT")


@pytest.mark.parametrize("plan", [*PLANS])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_inputs_of_another_type_are_not_rounded(plan, dtype):
    message = "dtype|expected scalar type|x is of torch.int64"
    with pytest.raises((RuntimeError, TypeError), match=message):
        layer("square", plan, torch.float32)(torch.ones(2, 16, dtype=dtype))


def test_inputs_of_another_size():
    with pytest.raises(ValueError, match=r"must have 16 features"):
        layer("square")(torch.zeros(2, 8))


def test_global_random_state_is_left_alone():
    state, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    layer("square", init_scale=None)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002

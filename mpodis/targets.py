"""Operators to disentangle: random and planted ones, evolution operators, trained layers, files.

Every argument is a number, a string, a list or a target again, so that the table of a TOML file
says the same as a call (`make_target`). A whole number as a seed gives numbers of its own: the
same seed in `disentangle` or `random_circuit` draws others, so that no search begins at the
circuits that are planted. Operators of many sites never become dense.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpodis.absorption import AbsorbingMPO, canonical_mpo
from mpodis.arguments import check_count, plain_numbers
from mpodis.circuit import brickwall, random_circuit
from mpodis.conventions import check_legs
from mpodis.data import Dataset, load_data
from mpodis.environments import to_mpo
from mpodis.factorization import Factorization
from mpodis.files import load_arrays, save_arrays
from mpodis.hamiltonians import Terms, pauli_chain
from mpodis.mpo import Compressed, compress
from mpodis.options import suggestion
from mpodis.sites import (
    identity_tensors,
    left_canonical,
    mpo_from_tensors,
    spread_norm,
)
from mpodis.time_evolution import evolution, trotter
from mpodis.weights import holds_mpo, load_mpo, load_weight

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator
    from torch import nn

    from mpodis.nn import TrainingRecord

__all__ = [
    "TARGETS",
    "check_target",
    "evolution_mpo",
    "load_operator",
    "make_target",
    "planted_factorization",
    "planted_mpo",
    "random_matrix",
    "random_mpo",
    "trained_layer",
    "trained_mpo",
    "trotter_mpo",
]

LARGEST = 2**28
"""Numbers of a target, 2 GiB in double precision."""
LARGEST_BOND = 1024
"""Of an MPO that is made without truncation."""
ROUNDING = 1e-15
"""Schmidt values that are cut off, relative to the largest one."""
NOISE = 1e-28
"""Weight that a gate may lose where it is absorbed, relative to the norm."""
STREAM = 20250906
"""Sets the numbers of a seed apart from those that it gives elsewhere."""
DTYPES = ("float64", "complex128", "float32", "complex64")


# --- random operators


@plain_numbers
def random_mpo(
    n: int,
    max_bond: int,
    *,
    legs: Sequence[Sequence[int]] | None = None,
    dtype: str = "float64",
    seed: int | np.random.Generator = 0,
) -> MatrixProductOperator:
    """An MPO whose site tensors have independent Gaussian entries, of norm 1.

    Parameters
    ----------
    n : int
        Number of sites.
    max_bond : int
        Bond dimension chi; less near the ends, where the legs do not allow as much.
    legs : sequence of n (input, output) dimensions, optional
        Default: (2, 2) on every site.
    dtype : {"float64", "complex128", "float32", "complex64"}
    seed : int or numpy.random.Generator

    Returns
    -------
    quimb.tensor.MatrixProductOperator
        Isometric from the left, with Frobenius norm 1.

    Raises
    ------
    ValueError
        A number out of its range, an unknown dtype, or legs of another number of sites.

    Notes
    -----
    Random MPOs are nearly as entangled as their bonds allow, as random matrix product states are
    (arXiv 0908.3877; those are drawn site by site as isometries, these look the same from both
    ends, see arXiv 2505.00073). For large chi and far from the ends, the purity sum_i s_i^4 of a
    bond's spectrum tends to (D + 1) / ((D - 1) chi) for sites of D = inputs x outputs: the Gram
    matrices of both halves have the second moment m = 1 + m / D, and are free of each other.
    With qubits, D = 4, the Renyi-2 entropy is log chi - 0.51; S, measured at chi = 128, is
    log chi - 0.31.

    Examples
    --------
    >>> mpo = random_mpo(48, 6, seed=1)
    >>> mpo.bond_sizes()[:4], round(float(mpo.norm()), 12)
    ([4, 6, 6, 6], 1.0)
    """
    n = _whole("n", n)
    max_bond = _whole("max_bond", max_bond)
    _check_dtype(dtype)
    _check_size(16 * n, f"n={n:,} sites")
    legs = ((2, 2),) * n if legs is None else check_legs(legs)
    if len(legs) != n:
        raise ValueError(f"legs= names {len(legs)} sites, but n={n}; give one pair for each site")
    tensors = _gaussian_tensors(legs, max_bond, dtype, _generator(seed))
    return mpo_from_tensors(spread_norm(left_canonical(tensors)[0], 0.0))


def _gaussian_tensors(
    legs: Sequence[tuple[int, int]], max_bond: int, dtype: str, rng: np.random.Generator
) -> list[np.ndarray]:
    """Site tensors of Gaussian entries, and no bond larger than what is on one side of it."""
    n = len(legs)
    bonds = [1, *[max_bond] * (n - 1), 1]
    for k, (i, o) in enumerate(legs):
        bonds[k + 1] = min(bonds[k + 1], bonds[k] * i * o)
    for k in range(n - 1, -1, -1):
        bonds[k] = min(bonds[k], bonds[k + 1] * legs[k][0] * legs[k][1])
    shapes = [(bonds[k], i, o, bonds[k + 1]) for k, (i, o) in enumerate(legs)]
    _check_size(sum(map(math.prod, shapes)), f"n={n:,} and max_bond={max_bond:,}")
    return [_gaussian(shape, dtype, rng) for shape in shapes]


@plain_numbers
def random_matrix(
    rows: int,
    columns: int,
    *,
    exponent: float | None = None,
    dtype: str = "float64",
    seed: int | np.random.Generator = 0,
) -> np.ndarray:
    """A dense random matrix of norm 1: Gaussian, or of singular values that fall as a power.

    Parameters
    ----------
    rows, columns : int
        Inputs and outputs.
    exponent : float, optional
        The i-th singular value, from 1, is i^-exponent up to the norm, between Haar-random singular
        vectors. Default: independent Gaussian entries.
    dtype : {"float64", "complex128", "float32", "complex64"}
    seed : int or numpy.random.Generator

    Returns
    -------
    array (rows, columns)

    Raises
    ------
    ValueError
        A number out of its range, or an unknown dtype.

    Examples
    --------
    >>> s = np.linalg.svd(random_matrix(16, 8, exponent=1.0), compute_uv=False)
    >>> [round(float(x), 6) for x in s[0] / s[:4]]
    [1.0, 2.0, 3.0, 4.0]
    """
    rows = _whole("rows", rows)
    columns = _whole("columns", columns)
    _check_size(rows * columns, f"rows={rows:,} and columns={columns:,}")
    _check_dtype(dtype)
    rng = _generator(seed)
    matrix = _gaussian((rows, columns), dtype, rng)
    if exponent is not None:
        if isinstance(exponent, bool) or not 0 <= exponent < math.inf:
            raise ValueError(f"exponent={exponent!r} must be a number, 0 or more, or None")
        # the singular vectors of a Gaussian matrix are Haar-random
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        matrix = (u * np.arange(1.0, len(s) + 1).astype(s.dtype) ** -exponent) @ vh
    return matrix / np.linalg.norm(matrix)


# --- operators of which the circuits are known


@plain_numbers
def planted_factorization(
    n: int,
    depth: int,
    core_bond: int = 1,
    *,
    width: int = 2,
    group: str = "SO",
    seed: int | np.random.Generator = 0,
) -> Factorization:
    """Q_L M' Q_R of Haar-random gates and a Gaussian core of norm 1, of any size.

    Parameters
    ----------
    n : int
        Number of sites, with legs (2, 2).
    depth : int
        Layers of each circuit. The left one is ``brickwall(n, depth, width, fill=False)``, the
        right one the same in the opposite order: full gates only, so that the circuits
        of `disentangle` at the same depth and width have all of their places.
    core_bond : int
        Bond dimension of M', see `random_mpo`.
    width : int
        Wires of a gate.
    group : {"SO", "O", "U"}
        Of the gates; the core is complex with "U".
    seed : int or numpy.random.Generator

    Returns
    -------
    Factorization
        Its overlap with `planted_mpo` of the same arguments is 1.

    Raises
    ------
    ValueError
        A number out of its range or an unknown group.

    Examples
    --------
    >>> hidden = planted_factorization(32, 2, seed=3)
    >>> hidden.left.ansatz.depth, max(hidden.core.bond_sizes())
    (2, 1)
    """
    n = _whole("n", n)
    core_bond = _whole("core_bond", core_bond)
    ansatz = brickwall(n, depth, width, group=group, fill=False)
    rng = _generator(seed)
    core = random_mpo(n, core_bond, dtype="complex128" if group == "U" else "float64", seed=rng)
    left, right = (random_circuit(places, seed=rng) for places in (ansatz, ansatz.reversed()))
    return Factorization(left, core, right, (2**n, 2**n))


@plain_numbers
def planted_mpo(
    n: int,
    depth: int,
    core_bond: int = 1,
    *,
    width: int = 2,
    group: str = "SO",
    seed: int | np.random.Generator = 0,
) -> MatrixProductOperator:
    """The MPO of a `planted_factorization`: circuits of this depth reach the overlap 1.

    Only rounding is cut off. The largest bond dimension is 4, 16, 64, 256 for 1 to 4 layers of
    two-qubit gates around a product core, at most `core_bond` times as much around another, and
    never more than 4^(n / 2).

    Parameters
    ----------
    n, depth, core_bond, width, group, seed
        See `planted_factorization`.

    Returns
    -------
    quimb.tensor.MatrixProductOperator
        Of norm 1.

    Raises
    ------
    ValueError
        A bond dimension that may exceed 1024, and see `planted_factorization`.

    Examples
    --------
    >>> import mpodis
    >>> target = planted_mpo(32, 2, seed=3)
    >>> max(target.bond_sizes())
    16
    >>> round(mpodis.true_overlap(planted_factorization(32, 2, seed=3), target).value, 12)
    1.0
    """
    hidden = planted_factorization(n, depth, core_bond, width=width, group=group, seed=seed)
    bound = max(_bond_bounds(hidden), default=1)
    if bound > LARGEST_BOND:
        raise ValueError(
            f"n={n}, depth={depth}, width={width}, core_bond={core_bond}: the MPO may need a bond "
            f"dimension of {bound}, above {LARGEST_BOND}; use fewer layers, narrower gates or a "
            "smaller core"
        )
    return to_mpo(hidden, max_bond=bound, cutoff=ROUNDING)


def _bond_bounds(whole: Factorization) -> list[int]:
    """The most that every bond dimension can be, layer by layer from the core outwards.

    A gate multiplies the dimension of a bond by up to 4 for each of its wires on the shorter side;
    the bonds beside the gate stay, and with them what the legs in between allow.
    """
    bonds = [1, *whole.core.bond_sizes(), 1]
    layers = zip(whole.left.ansatz.layers[::-1], whole.right.ansatz.layers, strict=True)
    for place in itertools.chain.from_iterable(itertools.chain.from_iterable(layers)):
        first, last = place.wires[0], place.wires[-1] + 1  # bonds beside the gate
        for k in range(first + 1, last):
            a, b = k - first, last - k
            grown = bonds[k] * 4 ** min(a, b)
            bonds[k] = min(grown, bonds[first] * 4**a, bonds[last] * 4**b)
    return bonds[1:-1]


# --- evolution operators


@plain_numbers
def evolution_mpo(
    n: int, terms: Terms, t: float, *, error: float = 1e-10, max_bond: int | None = None
) -> MatrixProductOperator:
    """exp(-i t H) on kets as an MPO, see `mpodis.evolution`, which also says how exact it is.

    Parameters
    ----------
    n : int
        Number of sites.
    terms : str, mapping, LocalHam1D or SparsePauliOp
        "ZZ=1, X=0.75", or {"ZZ": 1.0, "X": 0.75}, for `pauli_chain`; a mapping may have a list of
        one number for each place. Or a Hamiltonian as `mpodis.evolution` takes it.
    t : float
        Time, in units of one over those of the terms.
    error, max_bond
        See `mpodis.evolution`.

    Returns
    -------
    quimb.tensor.MatrixProductOperator
        Of norm 2^(n/2).

    Raises
    ------
    ValueError
        A term that cannot be read, and see `mpodis.evolution`.

    Examples
    --------
    >>> max(evolution_mpo(8, "ZZ=1, X=0.75", 0.5, error=1e-8).bond_sizes())
    6
    """
    n = _whole("n", n)
    return evolution(_terms(n, terms), t, error=error, max_bond=max_bond, n=n).mpo


@plain_numbers
def trotter_mpo(
    n: int,
    terms: Terms,
    t: float,
    *,
    order: int | str = 2,
    layers: int | None = None,
    steps: int | None = None,
) -> MatrixProductOperator:
    """The operator on kets of a Trotter circuit, see `mpodis.trotter`, as an MPO.

    Gates are absorbed one after the other; only rounding is cut off.

    Parameters
    ----------
    n, terms, t
        See `evolution_mpo`.
    order, layers, steps
        See `mpodis.trotter`.

    Returns
    -------
    quimb.tensor.MatrixProductOperator
        Of norm 2^(n/2).

    Raises
    ------
    ValueError
        A bond dimension that exceeds 1024, and see `mpodis.trotter`.

    Examples
    --------
    >>> trotter_mpo(6, "ZZ=1, X=0.75", 0.5, layers=3).bond_sizes()
    [4, 4, 16, 4, 4]
    """
    n = _whole("n", n)
    circuit = trotter(_terms(n, terms), t, order, layers=layers, steps=steps, n=n)
    mpo = canonical_mpo(identity_tensors(((2, 2),) * n))
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        # the row action Q is the transposed operator on kets: Q^T has the gates in opposite order
        mpo.absorb(place.wires[0], left=np.asarray(gate).T, weight=NOISE)
        _check_bond(mpo, f"n={n}, t={t}, {circuit.ansatz.depth} layers")
    return mpo_from_tensors(spread_norm(left_canonical(mpo.sites)[0], n / 2 * math.log(2)))


def _check_bond(mpo: AbsorbingMPO, what: str) -> None:
    bond = max(map(len, mpo.weights))
    if bond > LARGEST_BOND:
        raise ValueError(
            f"{what}: the MPO needs a bond dimension above {LARGEST_BOND}; use a shorter time or "
            "fewer layers, or `evolution_mpo` with max_bond="
        )


def _terms(n: int, terms: Terms) -> Any:
    """Terms of a chain from couplings by name; other Hamiltonians as they are."""
    if isinstance(terms, str):
        terms = _couplings(terms)
    if isinstance(terms, Mapping) and all(isinstance(name, str) for name in terms):
        return pauli_chain(n, **terms)
    return terms


def _couplings(text: str) -> dict[str, float]:
    """Numbers by Pauli matrices, of "ZZ=1, X=0.75"."""
    found: dict[str, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([XYZ]{1,2})\s*=\s*(\S+)\s*", part)
        try:
            name, number = match.groups() if match else ("", "")
            value = float(number)
        except ValueError:
            raise ValueError(
                f"terms={text!r}: {part.strip()!r} is no coupling; write e.g. 'ZZ=1, X=0.75'"
            ) from None
        if name in found:
            raise ValueError(f"terms={text!r} names {name} twice")
        found[name] = value
    return found


# --- layers


def load_operator(
    path: str | os.PathLike, *, layer: str | None = None, transpose: bool | None = None
) -> np.ndarray | Compressed:
    """A weight matrix, or an MPO that `save_mpo` wrote, from a file.

    Parameters
    ----------
    path : path
        .npy, .npz, .safetensors, or a state dict of PyTorch.
    layer : str, optional
        Name of the array where the file has several matrices; "fc1" also finds "fc1.weight".
    transpose : bool, optional
        Whether the file has the axes (outputs, inputs). Default: yes for all but NumPy's files.

    Returns
    -------
    array (inputs, outputs), or Compressed

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        A file that cannot be read, or not one matrix.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "fc.npz"
    >>> np.savez(file, fc1=np.ones((64, 32)), fc2=np.ones((32, 10)))
    >>> load_operator(file, layer="fc2").shape
    (32, 10)
    """
    if holds_mpo(path):
        if layer is not None or transpose is not None:
            raise ValueError(f"{path} holds an MPO; layer= and transpose= are for matrices")
        return load_mpo(path)
    weight = load_weight(path, layer=layer, transpose=transpose)
    if weight.matrix.ndim != 2:
        raise ValueError(
            f"{path}: {weight.name} has shape {weight.matrix.shape}; give the layer= of a matrix"
        )
    return weight.matrix


def trained_layer(
    layer: str = "0",
    *,
    data: str = "digits",
    data_dir: str | None = None,
    hidden: Sequence[int] = (64,),
    seed: int = 0,
    cache: str | os.PathLike | None = None,
) -> np.ndarray:
    """The weight of a layer of a dense network, which is trained here by `mpodis.nn.train_dense`.

    Parameters
    ----------
    layer : str
        "0", "2", "4" .., the names of the linear layers, between which there are ReLUs.
    data : {"digits", "mnist", "cifar10"}
        See `mpodis.data.load_data`; the digits come with the package's dependencies.
    data_dir : str, optional
        Folder with the other data sets.
    hidden : sequence of int
        Widths of the hidden layers.
    seed : int
        Of the initial weights and of the order of the images.
    cache : path, optional
        Folder in which trained networks are kept, by their sizes, data and seed. One that is there
        is not trained again; processes that ask for it at the same time all train it, to the
        same weights. Default: it is trained in every call, which takes seconds.

    Returns
    -------
    array (inputs, outputs)
        In double precision, not normalised.

    Raises
    ------
    ValueError
        A layer that the network does not have, or data without a recipe.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> trained_layer(hidden=[16], cache=folder).shape
    (64, 16)
    >>> trained_layer("2", hidden=[16], cache=folder).shape  # of the same network
    (16, 10)
    """
    seed = _whole("seed", seed, least=0)
    names = [str(2 * k) for k in range(len(hidden) + 1)]
    if str(layer) not in names:
        raise ValueError(f"layer={layer!r} is not known; the layers are {', '.join(names)}")
    arrays, _ = dense_weights(load_data(data, data_dir=data_dir), cache, seed, hidden=hidden)
    return arrays[f"{layer}.weight"].T.astype(float)


def trained_mpo(
    max_bond: int = 2,
    *,
    data: str = "digits",
    data_dir: str | None = None,
    seed: int = 0,
    cache: str | os.PathLike | None = None,
) -> MatrixProductOperator:
    """The MPO layer of the paper's compact network, which is trained by `mpodis.nn.train_tnn`.

    Parameters
    ----------
    max_bond : int
        Bond dimension of the layer during training.
    data : {"digits", "mnist"}
        8 x 8 images, 6 sites.
    data_dir, seed, cache
        See `trained_layer`.

    Returns
    -------
    quimb.tensor.MatrixProductOperator
        In double precision, not normalised.

    Raises
    ------
    ValueError
        Data without a recipe, or a bond dimension below 1.

    Examples
    --------
    >>> trained_mpo(2).bond_sizes()
    [2, 2, 2, 2, 2]
    """
    max_bond = _whole("max_bond", max_bond)
    seed = _whole("seed", seed, least=0)
    arrays, _ = tnn_weights(load_data(data, data_dir=data_dir), cache, seed, bond=max_bond)
    sites = sum(name.startswith("mpo.site_tensors.") for name in arrays)
    return mpo_from_tensors([arrays[f"mpo.site_tensors.{k}"].astype(float) for k in range(sites)])


def dense_weights(
    images: Dataset, cache: str | os.PathLike | None, seed: int, *, hidden: Sequence[int]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights of a trained dense network, and the record of its training."""
    from mpodis.nn import train_dense

    sizes = "-".join(map(str, (images.features, *hidden, images.classes)))
    return kept(
        cache,
        f"{sizes}-{images.name}-{seed}",
        lambda: train_dense(images, hidden=hidden, seed=seed),
    )


def tnn_weights(
    images: Dataset, cache: str | os.PathLike | None, seed: int, *, bond: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights of a trained `CompactTNN`, and the record of its training."""
    from mpodis.nn import train_tnn

    name = f"tnn{bond}-{images.name}-{seed}"
    return kept(cache, name, lambda: train_tnn(images, seed=seed, bond=bond))


def kept(
    cache: str | os.PathLike | None,
    name: str,
    train: Callable[[], tuple[nn.Module, TrainingRecord]],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """From a file in the folder, which training makes where there is none.

    Two processes that want the same network at the same time both train it, to the same weights.
    """
    file = None if cache is None else Path(cache) / f"{name}.safetensors"
    if file is not None and file.exists():
        arrays, header = load_arrays(file)
        return arrays, json.loads(header["training"])
    model, trained = train()
    record = asdict(trained)
    arrays = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(file, arrays, metadata={"training": json.dumps(record)})
    return arrays, record


# --- by name

TARGETS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        random_mpo,
        random_matrix,
        planted_mpo,
        evolution_mpo,
        trotter_mpo,
        load_operator,
        trained_layer,
        trained_mpo,
        compress,
    )
}
"""What a table of a TOML file can name as its kind; `compress` takes another target."""


def make_target(
    spec: Mapping[str, Any],
    *,
    seed: int | None = None,
    cache: str | os.PathLike | None = None,
) -> Any:
    """The operator that a table describes: a name in `TARGETS`, and the arguments.

    Parameters
    ----------
    spec : mapping
        `kind`, and the arguments of that function by their names. An argument that is a table with
        a `kind` is a target again: ``{"kind": "compress", "max_bond": 4, "operator": {"kind":
        "planted_mpo", "n": 32, "depth": 2}}``.
    seed : int, optional
        Of targets that take a seed and have none in their table, also of those inside.
    cache : path, optional
        Folder of trained networks, for tables that name none.

    Returns
    -------
    MatrixProductOperator, Compressed or array (inputs, outputs)
        What `as_mpo` and `disentangle` take.

    Raises
    ------
    ValueError
        No kind, an unknown one or an unknown key, for which the nearest one is named, or an
        argument that is missing; and what the function raises. All tables are checked first.

    Examples
    --------
    >>> make_target({"kind": "planted_mpo", "n": 8, "depth": 2}, seed=4).bond_sizes()
    [4, 4, 16, 4, 16, 4, 4]
    >>> make_target({"kind": "planted_mpo", "n": 8, "dept": 2})
    Traceback (most recent call last):
    ...
    ValueError: planted_mpo has no argument 'dept'; did you mean 'depth'?
    """
    check_target(spec)
    return _made(spec, {"seed": seed, "cache": cache})


def check_target(spec: Mapping[str, Any]) -> None:
    """Check that every table names a kind, and arguments that it has and needs.

    Raises
    ------
    ValueError
        What does not fit, with the nearest name.

    Examples
    --------
    >>> check_target({"kind": "random_mpo", "n": 8})
    Traceback (most recent call last):
    ...
    ValueError: random_mpo needs max_bond
    """
    if not _is_spec(spec):
        raise ValueError(f"the target {spec!r} has no kind; give one of {', '.join(TARGETS)}")
    kind = str(spec["kind"])
    if kind not in TARGETS:
        raise ValueError(f"kind={kind!r} is no target; {suggestion(kind, TARGETS)}")
    known = inspect.signature(TARGETS[kind]).parameters
    given = [name for name in spec if name != "kind"]
    for name in given:
        if name not in known:
            raise ValueError(f"{kind} has no argument {name!r}; {suggestion(name, known)}")
    missing = [
        name for name, item in known.items() if item.default is item.empty and name not in given
    ]
    if missing:
        raise ValueError(f"{kind} needs {', '.join(missing)}")
    for name in given:
        if _is_spec(spec[name]):
            check_target(spec[name])


def _is_spec(value: Any) -> bool:
    return isinstance(value, Mapping) and "kind" in value


def _made(spec: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """The target of a table that was checked."""
    function = TARGETS[spec["kind"]]
    known = inspect.signature(function).parameters
    used = {k: value for k, value in defaults.items() if value is not None and k in known}
    given = {
        name: _made(value, defaults) if _is_spec(value) else value
        for name, value in spec.items()
        if name != "kind"
    }
    return function(**used | given)


# --- arguments


def _generator(seed: int | np.random.Generator) -> np.random.Generator:
    if isinstance(seed, np.random.Generator):
        return seed
    entropy = _whole("seed", seed, least=0)
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(STREAM,)))


def _gaussian(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Independent entries of variance 1, or of 1 in each part."""
    normal = rng.normal(size=shape)
    if dtype.startswith("complex"):
        normal = normal + 1j * rng.normal(size=shape)
    return normal.astype(dtype, copy=False)


def _whole(name: str, value: Any, *, least: int = 1) -> int:
    check_count(name, value, least)
    return int(value)  # numpy's overflow in 2^n


def _check_size(numbers: int, what: str) -> None:
    """A ValueError for a target that no memory holds."""
    if numbers > LARGEST:
        raise ValueError(f"{what} make a target of {numbers:,} numbers, more than 2^28; use less")


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is not known; use one of {', '.join(DTYPES)}")

"""Rotations of a layer that neighbouring layers absorb, and its mean, which the bias absorbs.

The network computes the same function, but the layer becomes easier to approximate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpodis.arguments import check_count
from mpodis.arrays import as_numpy, rescaled, size_exponent, times_power_of_two
from mpodis.fit import embed_metric, metric_root
from mpodis.mpo import check_matrix
from mpodis.tables import Table, Tabular

__all__ = ["HeadRotation", "absorb_mean_into_bias", "head_rotation", "pca_basis"]


def pca_basis(covariance: np.ndarray) -> np.ndarray:
    """Rotation of the inputs to their principal components, the largest first.

    With the rotation R the inputs become ``x @ R``, a matrix W becomes ``R^H @ W`` and the
    covariance ``R^H @ C @ R``, diagonal and descending. It costs nothing where the layer before
    can absorb it, e.g. on the residual stream of a transformer without elementwise gains in its
    norms.

    Parameters
    ----------
    covariance : array (inputs, inputs)
        E[x^H x], see `second_moment`.

    Returns
    -------
    array (inputs, inputs)
        Orthogonal (unitary); the largest entry of each column is real and positive.

    Examples
    --------
    >>> pca_basis(np.diag([1.0, 4.0]))
    array([[0., 1.],
           [1., 0.]])
    """
    rows = [*as_numpy(covariance, what="covariance").shape, 0][0]
    _, vectors = np.linalg.eigh(embed_metric(covariance, rows))
    vectors = vectors[:, ::-1]
    return vectors * _phases(vectors)


@dataclass(frozen=True, eq=False)
class HeadRotation(Tabular):
    """Changes of basis inside every attention head that leave all scores unchanged.

    Attributes
    ----------
    query : array (heads, dim, dim)
        G of every head, on the right of its query columns.
    key : array (heads, dim, dim)
        G^(-T), on the right of its key columns.
    values : array (heads, dim)
        Singular values of Wq Wk^T (with a covariance, of C Wq Wk^T C) of every head, descending.
    exponent : int
        Where those are beyond the range of their type, `values` are to be multiplied by
        2^exponent; else 0.
    """

    query: np.ndarray
    key: np.ndarray
    values: np.ndarray
    exponent: int = 0

    def rotate_query(self, array: np.ndarray) -> np.ndarray:
        """Wq (inputs, heads * dim), its bias (heads * dim,) or queries, in the new basis."""
        return _blockwise(array, self.query)

    def rotate_key(self, array: np.ndarray) -> np.ndarray:
        """Wk (inputs, heads * dim), its bias (heads * dim,) or keys, in the new basis."""
        return _blockwise(array, self.key)

    def table(self) -> Table:
        rows = []
        for head, (gate, values) in enumerate(zip(self.query, self.values, strict=True)):
            weight = (values / (values[0] or 1.0)) ** 2
            total = weight.sum()
            share = float(weight[0] / total) if total > 0 else None
            rows.append((str(head), float(np.linalg.cond(gate)), float(values[0]), share))
        largest = f"largest value / 2^{self.exponent}" if self.exponent else "largest value"
        columns = ("head", "condition", largest, "its share of the weight")
        return Table(columns, rows, "head rotation")


def head_rotation(
    wq: np.ndarray,
    wk: np.ndarray,
    *,
    heads: int,
    covariance: np.ndarray | None = None,
    kind: str = "balanced",
) -> HeadRotation:
    """Choose the basis inside each head, Wq -> Wq G and Wk -> Wk G^(-T); scores are unchanged.

    The scores x Wq (x Wk)^T of a head do not change. Heads with rotary positions between the
    projections and the scores do not have this freedom.

    Parameters
    ----------
    wq, wk : array (inputs, heads * dim), real
        Row action, ``q = x @ wq``: transposes of `torch.nn.Linear.weight`. Head h owns the
        columns h * dim to (h + 1) * dim - 1.
    heads : int
    covariance : array (inputs, inputs), optional
        Weigh queries and keys by the activations: C Wq and C Wk in place of Wq and Wk.
    kind : {"balanced", "orthogonal"}
        "balanced": Wq G = U sqrt(s), Wk G^(-T) = V sqrt(s) with the SVD U s V^T of the head's
        Wq Wk^T, so that both have orthogonal columns of the same, descending norms.
        "orthogonal": G is the rotation that makes Wq^T Wq + Wk^T Wk diagonal and descending.

    Returns
    -------
    HeadRotation

    Raises
    ------
    ValueError
        Shapes that do not fit, an unknown kind, or a head whose queries or keys are linearly
        dependent, so that it has no balanced basis.
    """
    check_count("heads", heads)
    wq, wk = check_matrix(wq), check_matrix(wk)
    if np.iscomplexobj(wq) or np.iscomplexobj(wk):
        raise ValueError("the scores of complex heads are not bilinear; give real wq and wk")
    if wq.shape != wk.shape or wq.shape[1] % heads:
        raise ValueError(
            f"wq {wq.shape} and wk {wk.shape} do not hold {heads} heads of one size each; repeat "
            "the columns of shared keys, or give both as (inputs, heads * dim)"
        )
    if kind not in ("balanced", "orthogonal"):
        raise ValueError(f"kind={kind!r} is not known; use 'balanced' or 'orthogonal'")
    (wq, a), (wk, b) = rescaled(wq), rescaled(wk)
    if (a - b) % 2:  # G takes half of the difference
        wq, a = wq / 2, a + 1
    exponent = a + b
    if covariance is not None:
        exponent += rescaled(as_numpy(covariance, what="covariance"))[1]
        root = metric_root(embed_metric(covariance, len(wq)))
        if len(covariance) != len(wq):
            raise ValueError(f"the covariance has {len(covariance)} inputs, wq {len(wq)}")
        wq, wk = root @ wq, root @ wk
    choose = _balanced if kind == "balanced" else _orthogonal
    pairs = zip(np.split(wq, heads, axis=1), np.split(wk, heads, axis=1), strict=True)
    found = [choose(q, k, head, a - b) for head, (q, k) in enumerate(pairs)]
    query, key, values = map(np.stack, zip(*found, strict=True))
    if abs(size_exponent(values) + exponent) < np.finfo(values.dtype).maxexp - 30:
        values, exponent = times_power_of_two(values, exponent), 0
    return HeadRotation(query, key, values, exponent)


def absorb_mean_into_bias(
    matrix: np.ndarray,
    approximation: np.ndarray,
    mean: np.ndarray,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """The bias b + mean @ (W - A) with which an approximated layer maps the mean input as before.

    Only the centred inputs then cause errors: fit the approximation A to
    `second_moment(..., centred=True)`.

    Parameters
    ----------
    matrix, approximation : array (inputs, outputs)
    mean : array (inputs,)
    bias : array (outputs,), optional

    Returns
    -------
    array (outputs,)
    """
    matrix, approximation, mean = map(as_numpy, (matrix, approximation, mean))
    bias = np.zeros(matrix.shape[-1:], matrix.dtype) if bias is None else as_numpy(bias)
    fits = matrix.ndim == 2 and matrix.shape == approximation.shape
    if not fits or mean.shape != matrix.shape[:1] or bias.shape != matrix.shape[1:]:
        raise ValueError(
            f"matrix {matrix.shape}, approximation {approximation.shape}, mean {mean.shape} and "
            f"bias {bias.shape} must be (inputs, outputs) twice, (inputs,) and (outputs,)"
        )
    return bias + mean @ (matrix - approximation)


Choice = tuple[np.ndarray, np.ndarray, np.ndarray]
"""G, G^(-T) and the singular values of a head."""


def _balanced(q: np.ndarray, k: np.ndarray, head: int, shift: int) -> Choice:
    """Of queries q 2^shift and keys k; the values are those of q and k."""
    rq, rk = np.linalg.qr(q)[1], np.linalg.qr(k)[1]
    dim = rq.shape[1]
    for name, r in (("queries", rq), ("keys", rk)):
        spectrum = np.linalg.svd(r, compute_uv=False)
        if len(spectrum) < dim or spectrum[-1] < 1e-10 * spectrum[0] or spectrum[0] == 0:
            raise ValueError(
                f"the {name} of head {head} span fewer than {dim} dimensions: no balanced basis; "
                "use kind='orthogonal'"
            )
    u, s, _ = np.linalg.svd(rq @ rk.T)
    query = np.linalg.solve(rq, u * _phases(rq.T @ u) * np.sqrt(s))
    key = np.linalg.inv(query).T
    half = shift // 2
    return times_power_of_two(query, -half), times_power_of_two(key, half), s


def _orthogonal(q: np.ndarray, k: np.ndarray, head: int, shift: int) -> Choice:
    """Of queries q 2^shift and keys k; the values are those of q and k."""
    # the larger of the two stays as it is
    of_queries = times_power_of_two(q.T @ q, min(2 * shift, 0))
    of_keys = times_power_of_two(k.T @ k, min(-2 * shift, 0))
    _, vectors = np.linalg.eigh(of_queries + of_keys)
    vectors = vectors[:, ::-1]
    gate = vectors * _phases(vectors)
    short = np.linalg.qr(q)[1] @ np.linalg.qr(k)[1].T
    values = np.zeros(q.shape[1])
    spectrum = np.linalg.svd(short, compute_uv=False)[: len(values)]
    values[: len(spectrum)] = spectrum
    return gate, gate, values


def _phases(vectors: np.ndarray) -> np.ndarray:
    """Phases (signs) that make the largest entry of every column positive."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)[0]
    return largest.conj() / np.abs(largest)


def _blockwise(array: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """An array whose last axis is (heads * dim), times the gate of each head."""
    array = as_numpy(array)
    heads, dim, _ = gates.shape
    if array.ndim < 1 or array.shape[-1] != heads * dim:
        raise ValueError(
            f"an array of shape {array.shape} does not end in {heads} heads of {dim}; "
            "torch keeps weights as (outputs, inputs): transpose them"
        )
    split = array.reshape(*array.shape[:-1], heads, 1, dim)
    return (split @ gates).reshape(array.shape)

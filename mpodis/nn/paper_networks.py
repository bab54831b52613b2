"""The networks of Figs. 5 and 6 with the circuits of Tables 3 to 6 of arXiv 2509.06653v1.

The paper draws the layers without all of their dimensions. "mnist" is chosen to have the paper's
numbers of parameters: 784-256-64-8-10 with circuits on the 4 qubit legs of the first layer, on 8
wires before the second and on 6 before the third. The specs of Table 4 then give its counts for the
networks of CNOTs, of 1-body and of 2-body gates exactly; what Table 4 leaves out of the last two
rows is completed such that their counts agree. 656 of the 854 parameters belong to batch
normalizations. "cifar10", 3072-512-256-256-10, has the layers of Table 6 with legs of our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mpodis.nn.hybrid_network import HybridNetwork, LayerSpec
from mpodis.nn.linear import Seed

__all__ = ["ARCHITECTURES", "Architecture"]

Circuits = Mapping[int, tuple[str, str]]
"""Specs of the circuits before and after the core, by the number of the layer from 1."""


@dataclass(frozen=True)
class Architecture:
    """The layers of a network, with the bond dimensions and circuits of each row of a table.

    Attributes
    ----------
    legs : tuple
        Of every layer.
    bonds : mapping
        Bond dimensions of every layer, by a name.
    rows : mapping
        For every row of the table the name of its bond dimensions, and its circuits.
    paper : mapping
        Number of parameters and accuracy in percent that the paper gives for a row.
    norm, parity
        See `HybridNetwork`.
    quadtree : bool
        Whether pixels are ordered quarter by quarter instead of row by row.
    """

    legs: tuple[tuple[tuple[int, int], ...], ...]
    bonds: Mapping[str, tuple[int | tuple[int, ...], ...]]
    rows: Mapping[str, tuple[str, Circuits]]
    paper: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    norm: str = "affine"
    parity: int = 1
    quadtree: bool = False

    def layer_specs(self, row: str) -> tuple[LayerSpec, ...]:
        """The layers of a row.

        Raises
        ------
        ValueError
            If there is no such row; the message lists those there are.
        """
        if row not in self.rows:
            raise ValueError(f"row {row!r} is not known; use one of {', '.join(self.rows)}")
        bonds, circuits = self.rows[row]
        return tuple(
            LayerSpec(legs, bond, *circuits.get(k, ("", "")))
            for k, (legs, bond) in enumerate(zip(self.legs, self.bonds[bonds], strict=True), 1)
        )

    def network(
        self,
        row: str,
        *,
        norm: str | None = None,
        parity: int | None = None,
        init_scale: float | None = None,
        batch_size: int = 256,
        seed: Seed = None,
    ) -> HybridNetwork:
        """The untrained network of a row.

        Parameters
        ----------
        row : str
        norm, parity : optional
            Instead of those of the architecture.
        init_scale, batch_size, seed
            See `HybridNetwork`.

        Examples
        --------
        >>> MNIST.network("2b", seed=0).counts()["all"]
        963
        """
        return HybridNetwork(
            self.layer_specs(row),
            norm=self.norm if norm is None else norm,
            parity=self.parity if parity is None else parity,
            init_scale=init_scale,
            batch_size=batch_size,
            seed=seed,
        )

    def pixels(self, image_shape: tuple[int, ...]) -> np.ndarray:
        """Number of the pixel (and colour) that each feature of the network is, (features,)."""
        order = np.arange(int(np.prod(image_shape)))
        return order[_quadtree(image_shape)] if self.quadtree else order


def _quadtree(image_shape: tuple[int, ...]) -> np.ndarray:
    """Features sorted by quarter, quarter of the quarter and so on, then by colour."""
    height, width = image_shape[:2]
    colours = int(np.prod(image_shape[2:]))
    row, column, _ = np.unravel_index(np.arange(height * width * colours), (height, width, colours))
    keys = []
    while height % 2 == 0 and width % 2 == 0 and height > 1:
        height, width = height // 2, width // 2
        keys += [row // height % 2, column // width % 2]
    # lexsort sorts by the last key first; quarters of odd size are ordered row by row
    return np.lexsort((column % max(width, 1), row % max(height, 1), *reversed(keys)))


MNIST_CIRCUITS: dict[str, Circuits] = {
    "cnot": {1: ("CNOT", "2*CNOT"), 2: ("6*CNOT", "2*CNOT"), 3: ("CNOT", "CNOT")},
    "1b": {
        1: ("CNOT", "2*CNOT"),
        2: ("1b + CNOT + 1b + 5*CNOT", "CNOT"),
        3: ("1b", "CNOT"),
    },
    "2b": {
        1: ("CNOT", "CNOT + 2b"),
        2: ("3*(CNOT + 2b)", "CNOT + 2b"),
        3: ("CNOT", "2b"),
    },
    "1b+2b small": {
        1: ("CNOT", "CNOT + 2b"),
        2: ("1b + CNOT + 2b + 1b + 4*CNOT", "CNOT + 2b"),
        3: ("1b", "CNOT"),
    },
    "1b+2b": {
        1: ("CNOT", "CNOT + 2b"),
        2: ("1b + CNOT + 2b + 1b + 2*(CNOT + 2b)", "CNOT + 2b"),
        3: ("2*(CNOT + 2b)", "3*(CNOT + 2b)"),
    },
}

_FIRST = ((7, 4), (2, 2), (2, 2), (2, 2), (2, 2), (7, 4))
_SECOND = ((2, 1), *((2, 2),) * 6, (2, 1))

MNIST = Architecture(
    legs=(_FIRST, _SECOND, ((2, 1), (2, 2), (2, 2), (2, 2), (2, 1), (2, 1)), ((8, 10),)),
    bonds={"base": ((1, 2, 2, 2, 1), 2, 2, 1), "product": (1, 1, 1, 1)},
    rows={"base": ("base", {}), "product": ("product", {})}
    | {name: ("product", circuits) for name, circuits in MNIST_CIRCUITS.items()},
    paper={
        "base": (1008, 94.47),
        "product": (854, 90.31),
        "cnot": (854, 91.58),
        "1b": (876, 92.78),
        "2b": (963, 93.88),
        "1b+2b small": (930, 93.51),
        "1b+2b": (1029, 94.66),
    },
)

MNIST_SHIFT = Architecture(
    legs=(
        _FIRST,
        _SECOND,
        ((2, 1), *((2, 2),) * 4, (2, 1)),
        ((8, 5), (2, 2)),
    ),
    bonds={
        "product": (1, 1, 1, 1),
        "876": ((3, 2, 3, 2, 3), 2, (2, 3, 3, 3, 2), 1),
        "963": (3, (2, 2, 3, 2, 3, 2, 2), (2, 2, 3, 2, 2), 2),
        "1029": (3, (2, 2, 3, 3, 3, 2, 2), (2, 3, 3, 3, 2), 2),
    },
    rows={"product": ("product", {})}
    | {f"MPO {size}": (size, {}) for size in ("876", "963", "1029")}
    | {
        name: ("product", circuits)
        for name, circuits in {
            "1b": {
                1: ("", "10*(1b + CNOT)"),
                2: ("22*(1b + CNOT)", "10*(1b + CNOT)"),
                3: ("15*(1b + CNOT)", ""),
            },
            "2b": {
                1: ("", "4*(CNOT + 2b)"),
                2: ("10*(CNOT + 2b)", "3*(CNOT + 2b)"),
                3: ("6*(CNOT + 2b)", ""),
            },
            "1b+2b": {
                1: ("", "4*(CNOT + 2b)"),
                2: ("1b + 12*(CNOT + 2b)", "3*(CNOT + 2b)"),
                3: ("7*(CNOT + 2b)", ""),
            },
        }.items()
    },
    norm="shift",
)

_PIXELS = (*((2, 2),) * 9, (6, 1))
_BONDS = (4, 16, 18, 18, 18, 18, 18, 18, 6)

CIFAR10 = Architecture(
    legs=(_PIXELS, ((2, 1), *((2, 2),) * 8), ((2, 2),) * 8, ((256, 10),)),
    bonds={
        "base": (
            (4, 16, 28, 28, 28, 28, 28, 24, 6),
            (2, 8, 20, 20, 20, 20, 16, 4),
            (4, 16, 20, 20, 20, 16, 4),
            1,
        ),
        "reduced": (_BONDS, (2, 8, 14, 14, 14, 14, 14, 4), (4, 14, 14, 14, 14, 14, 4), 1),
        "equal": (_BONDS, (2, 8, 14, 14, 14, 14, 14, 4), (4, 14, 15, 15, 14, 14, 4), 1),
    },
    rows={"base": ("base", {}), "reduced": ("reduced", {}), "equal parameters": ("equal", {})}
    | {
        name: ("reduced", circuits)
        for name, circuits in {
            "cnot": {
                1: ("CNOT", "CNOT"),
                2: ("3*CNOT", "4*CNOT"),
                3: ("4*CNOT", "3*CNOT"),
            },
            "1b": {
                1: ("2*CNOT", "2*CNOT"),
                2: ("3*(1b + CNOT)", "4*(1b + CNOT)"),
                3: ("8*CNOT", "6*CNOT"),
            },
            "2b": {
                1: ("CNOT", "2b"),
                2: ("CNOT + 2b + CNOT", "2*(CNOT + 2b)"),
                3: ("2*(CNOT + 2b)", "CNOT + 2b + CNOT"),
            },
            "1b+2b": {
                1: ("2*CNOT", "2*CNOT"),
                2: (
                    "1b + CNOT + 1b + 2b + CNOT + 2b + 1b + CNOT + 1b",
                    "2*(CNOT + 1b) + 2*(CNOT + 2b) + 2*(CNOT + 1b) + CNOT",
                ),
                3: ("8*CNOT", "6*CNOT"),
            },
            "2b alone": {2: ("2*2b", "2*2b"), 3: ("2*2b", "2*2b")},
        }.items()
    },
    paper={
        "base": (36700, 61.29),
        "reduced": (24200, 58.04),
        "cnot": (24200, 58.59),
        "1b": (25500, 59.19),
        "2b": (24300, 59.90),
        "1b+2b": (25300, 60.74),
    },
    quadtree=True,
)

DIGITS = Architecture(
    legs=(
        ((2, 2),) * 6,
        ((2, 1), *((2, 2),) * 3, (2, 1), (2, 1)),
        ((8, 10),),
    ),
    bonds={"base": (2, 2, 1), "product": (1, 1, 1)},
    rows={
        "base": ("base", {}),
        "product": ("product", {}),
        "1b": ("product", {1: ("", "2*(1b + CNOT)"), 2: ("2*(1b + CNOT)", "")}),
        "2b": ("product", {1: ("", "2b"), 2: ("CNOT + 2b", "")}),
    },
)

ARCHITECTURES: dict[str, Architecture] = {
    "digits": DIGITS,
    "mnist": MNIST,
    "mnist-shift": MNIST_SHIFT,
    "cifar10": CIFAR10,
}
"""By name; the names of data sets are those of `mpodis.data.load_data`."""

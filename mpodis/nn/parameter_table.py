"""How many parameters a network has, layer by layer and by their kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from torch import nn

from mpodis.tables import Table

__all__ = ["parameter_table"]

KINDS = ("MPO", "gates", "BatchNorm", "dense", "other")


@runtime_checkable
class Grouped(Protocol):
    """A layer that says of which kinds its parameters are; it is one row of the table."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters of the layer and of all modules inside by kind, one of `KINDS`."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """As every `torch.nn.Module`."""
        ...


TORCH_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "dense",
    nn.modules.conv._ConvNd: "dense",
    nn.modules.batchnorm._BatchNorm: "BatchNorm",
}
"""Kind of the parameters of torch's own layers, and of those derived from them."""


def parameter_table(model: nn.Module) -> Table:
    """Number of parameters of every layer: MPO, gates, BatchNorm, dense weights, and all others.

    Biases count as "dense". Every parameter counts once, however many modules use it.

    Parameters
    ----------
    model : torch.nn.Module

    Examples
    --------
    >>> from mpodis.nn import CompactTNN
    >>> table = parameter_table(CompactTNN(inputs=4, seed=0))
    >>> table.columns
    ('layer', 'MPO', 'gates', 'BatchNorm', 'dense', 'other', 'all')
    >>> table.rows[-1]
    ('all', 16, 0, 0, 50, 0, 66)
    """
    rows: list[tuple] = []
    counted: set[int] = set()

    def count(parameters: Iterable[nn.Parameter]) -> int:
        fresh = [p for p in parameters if id(p) not in counted]
        counted.update(map(id, fresh))
        return sum(p.numel() for p in fresh)

    inside: set[nn.Module] = set()  # of layers that have a row
    for name, module in model.named_modules():
        if module in inside:
            continue
        if isinstance(module, Grouped):
            inside |= set(module.modules())
            groups = module.parameter_groups()
        else:
            kind = next((k for base, k in TORCH_KINDS.items() if isinstance(module, base)), "other")
            groups = {kind: list(module.parameters(recurse=False))}
        counts = {kind: count(parameters) for kind, parameters in groups.items()}
        if any(counts.values()):
            rows.append((name or "(model)", *(counts.get(kind, 0) for kind in KINDS)))
    total = [sum(row[k] for row in rows) for k in range(1, len(KINDS) + 1)]
    rows = [(name, *counts, sum(counts)) for name, *counts in [*rows, ("all", *total)]]
    return Table(("layer", *KINDS, "all"), rows, title="parameters")

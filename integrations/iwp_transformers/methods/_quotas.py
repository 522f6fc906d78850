"""A budget divided among several grids of tokens in proportion to their sizes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from iwp_transformers.view import LayerView

__all__ = ["kept_by_grid", "quotas"]


def kept_by_grid(view: LayerView, rule: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a rule to each grid of tokens, and return all that it keeps.

    Parameters
    ----------
    view : LayerView
        Its candidates and their budget.
    rule : callable
        Takes the indices of a grid's tokens, shape (h, w), and a count >= 1. Returns indices into the flattened grid.

    Returns
    -------
    torch.Tensor
        Shape (M,), int64, ascending: indices of the candidates to keep.
    """
    counts = quotas([grid.numel() for grid in view.grids], view.budget)
    pairs = zip(view.grids, counts, strict=True)
    return torch.cat([grid.flatten()[rule(grid, count)] for grid, count in pairs if count]).sort().values


def quotas(sizes: Sequence[int], count: int) -> list[int]:
    """Divide a count in proportion to sizes, by largest remainder. Of equal remainders, the first is served first.

    Examples
    --------
    >>> quotas([6, 3, 1], 4)
    [3, 1, 0]
    """
    total = sum(sizes)
    shares = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: -(sizes[place] * count % total))
    for place in by_remainder[: count - sum(shares)]:
        shares[place] += 1
    return shares

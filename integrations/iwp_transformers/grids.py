"""Grids of visual tokens: which of them stand in rows and columns, read from where they look."""

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

from iwp_transformers.geometry import Region

__all__ = ["grids_of"]


def grids_of(regions: Sequence[Region]) -> tuple[Tensor, ...]:
    """Return the grids that the tokens of a sample make up.

    Parameters
    ----------
    regions : sequence of Region
        One for each visual token, in sequence order.

    Returns
    -------
    tuple of torch.Tensor
        Indices of tokens, int64, each of shape (h, w); every token is in exactly one. A frame, a shrunken view and all
        crops of an image together are a grid; separators, and tokens that do not make up a rectangle, are one of a row.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, region in enumerate(regions):
        key = (region.medium, region.index, region.frame, region.level)
        groups.setdefault(key, []).append(index)
    return tuple(_grid([regions[index] for index in group], group) for group in groups.values())


def _grid(regions: Sequence[Region], group: Sequence[int]) -> Tensor:
    indices, side = torch.tensor(group), isqrt(len(group))
    if regions[0].level == "base" and side**2 == len(group):
        # A view of a tower is a square, also where some of it is padding that looks nowhere.
        return indices.reshape(side, side)
    tops = [None if region.box is None else round(region.box[1], 6) for region in regions]
    width = len(group) // len(set(tops))
    rows = [set(tops[start : start + width]) for start in range(0, len(group), width)]
    return indices.reshape(-1, width) if len(rows) == len(set(tops)) and max(map(len, rows)) == 1 else indices[None]

"""Grids of visual tokens: which tokens form rows and columns, from the regions of the picture that they cover."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from iwp_transformers.callers import generation_inputs
from iwp_transformers.regions import Region

if TYPE_CHECKING:
    from iwp_transformers.plan import PruningPlan

__all__ = ["grids_of", "regions_of"]


def regions_of(plan: "PruningPlan", features: Mapping[str, Any], sample: int) -> Sequence[Region]:
    """Return the region that each visual token of a sample covers.

    Parameters
    ----------
    plan : PruningPlan
        The model and its family.
    features : mapping
        What the multimodal model was called with, by name.
    sample : int
        Row of the batch.

    Raises
    ------
    NotImplementedError
        If the regions are not known for the family.
    ValueError
        If the number of visual tokens does not follow from the pictures.
    """
    given = generation_inputs(plan.model) if features.get("mm_encoder_outputs") else {}
    if "input_ids" in given:
        # Beams and sequences to be returned repeat each sample.
        repeats = len(features["input_ids"]) // len(given["input_ids"])
        return plan.family.regions(plan.model_config, given, sample // repeats)
    return plan.family.regions(plan.model_config, features, sample)


def grids_of(regions: Sequence[Region]) -> tuple[Tensor, ...]:
    """Return the grids that the visual tokens of a sample form.

    Parameters
    ----------
    regions : sequence of Region
        One for each visual token, in sequence order.

    Returns
    -------
    tuple of torch.Tensor
        Indices of tokens, int64, each of shape (h, w). Every token is in exactly one grid. A frame, a shrunken view,
        and all crops of an image together are a grid. Separators, and tokens that do not form a rectangle, are a grid
        with one row.
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
    corners = [None if region.box is None else (round(region.box[1], 6), round(region.box[0], 6)) for region in regions]
    if None not in corners:
        # Crops of a picture come one after the other, each with rows of its own.
        order = sorted(range(len(corners)), key=lambda place: cast("tuple[float, float]", corners[place]))
        indices, corners = indices[order], [corners[place] for place in order]
    tops = [None if corner is None else corner[0] for corner in corners]
    width = len(group) // len(set(tops))
    rows = [set(tops[start : start + width]) for start in range(0, len(group), width)]
    return indices.reshape(-1, width) if len(rows) == len(set(tops)) and max(map(len, rows)) == 1 else indices[None]

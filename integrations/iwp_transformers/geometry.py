"""Where on the original picture each visual token looks.

A processor cuts, resizes and pads pictures before the model sees them, and the model unpads, merges and pools what
comes back. The functions here retrace that path from the processor's output alone, without running the model: one
`Region` per visual token, in the order of the sequence.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from iwp_transformers.regions import Edges, Item, Region, cells, even_edges, in_sequence, listed

__all__ = ["anyres_items_next", "anyres_regions_next", "anyres_regions_onevision"]

# LLaVA-OneVision's own threshold: a grid that exceeds its limit by less in each direction stays as it is.
SHRINKS_ABOVE = 1.1


def anyres_regions_onevision(config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int) -> tuple[Region, ...]:
    """Regions of LLaVA-OneVision: a base view, crops with one newline a row, and pooled video frames.

    Parameters
    ----------
    config : LlavaOnevisionConfig
        Configuration of the whole model.
    inputs : mapping
        The processor's output: `input_ids`, and `image_sizes`, `batch_num_images`, `pixel_values_videos` if it made
        them.
    sample : int
        Row of `input_ids`.

    Returns
    -------
    tuple of Region
        One for each visual token of the sample, in sequence order.

    Raises
    ------
    ValueError
        If `sample` is not in the batch, or if the tokens do not match the pictures of `inputs`.

    Notes
    -----
    An image that `batch_num_images` says to have company gets one padded square view and one newline, an image alone
    the base view and its crops; more crops than `vision_aspect_ratio` allows are shrunk bilinearly, and each token
    is then given its share of the larger grid, although it interpolates the nearest two rows and columns only.
    """
    limit = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    sizes = listed(inputs, "image_sizes")
    groups = listed(inputs, "batch_num_images") or [1] * len(sizes)
    alone = [count == 1 for count in groups for _ in range(count)]

    def image(size: Sequence[int], is_alone: bool) -> Item:
        return lambda i: _anyres_image(config, size, i, limit) if is_alone else _square_image(config, size, i)

    images = [image(size, is_alone) for size, is_alone in zip(sizes, alone, strict=True)]
    videos = [_pooled_video(config, len(frames)) for frames in inputs.get("pixel_values_videos", ())]
    return in_sequence(config, inputs, sample, images, videos)


def anyres_regions_next(config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int) -> tuple[Region, ...]:
    """Regions of LLaVA-NeXT: a base view and crops with one newline a row, for every image.

    Parameters
    ----------
    config : LlavaNextConfig
        Configuration of the whole model.
    inputs : mapping
        The processor's output: `input_ids`, and `image_sizes` if it made them.
    sample : int
        Row of `input_ids`.

    Returns
    -------
    tuple of Region
        One for each visual token of the sample, in sequence order.

    Raises
    ------
    ValueError
        If `sample` is not in the batch, or if the tokens do not match the pictures of `inputs`.
    """
    return in_sequence(config, inputs, sample, anyres_items_next(config, inputs), [])


def anyres_items_next(config: PreTrainedConfig, inputs: Mapping[str, Any]) -> list[Item]:
    """Return what builds the regions of each image of the batch, as LLaVA-NeXT cuts it."""

    def image(size: Sequence[int]) -> Item:
        return lambda index: _anyres_image(config, size, index, limit=None)

    return [image(size) for size in listed(inputs, "image_sizes")]


def _anyres_image(config: PreTrainedConfig, size: Sequence[int], index: int, limit: int | None) -> list[Region]:
    side, grid = config.vision_config.image_size, config.vision_config.image_size // config.vision_config.patch_size
    view = _patch_edges(config, crops=1) / side
    regions = [Region(medium="image", index=index, frame=0, box=box, level="base") for box in cells(view, view)]

    # The two library functions carry no annotations, hence the ignores.
    pinpoints = config.image_grid_pinpoints
    crop_rows, crop_columns = get_anyres_image_grid_shape(tuple(size), pinpoints, side)  # type: ignore[no-untyped-call]
    # The model's own unpadding, run on the ordinals of the patches, says which of them are left.
    shape = crop_rows * grid, crop_columns * grid
    ordinals = torch.arange(shape[0] * shape[1]).view(1, *shape)
    left = unpad_image(ordinals, tuple(size))[0]  # type: ignore[no-untyped-call]
    if not left.numel():
        # Of a picture far longer than wide, no column is left, and a newline alone stands for each row.
        newline = Region(medium="image", index=index, frame=0, box=None, level="newline")
        return [*regions, *[newline] * left.shape[0]]
    first_row, first_column = divmod(int(left[0, 0]), shape[1])
    rows = _patch_edges(config, crop_rows)[first_row : first_row + left.shape[0] + 1]
    columns = _patch_edges(config, crop_columns)[first_column : first_column + left.shape[1] + 1]
    ratio = 0.0 if limit is None else math.sqrt(left.numel() / (limit * grid**2))
    if ratio > SHRINKS_ABOVE:
        rows, columns = _resampled(rows, int(left.shape[0] // ratio)), _resampled(columns, int(left.shape[1] // ratio))

    top, height, first_x, width = _placement(size, crop_rows * side, crop_columns * side)
    boxes = cells((rows - top) / height, (columns - first_x) / width)
    for _ in range(len(rows) - 1):
        for _ in range(len(columns) - 1):
            regions.append(Region(medium="image", index=index, frame=0, box=next(boxes), level="crop"))
        regions.append(Region(medium="image", index=index, frame=0, box=None, level="newline"))
    return regions


def _square_image(config: PreTrainedConfig, size: Sequence[int], index: int) -> list[Region]:
    height, width = size
    square = max(size)
    view = _patch_edges(config, crops=1) / config.vision_config.image_size * square
    rows, columns = (view - (square - height) // 2) / height, (view - (square - width) // 2) / width
    regions = [Region(medium="image", index=index, frame=0, box=box, level="base") for box in cells(rows, columns)]
    return [*regions, Region(medium="image", index=index, frame=0, box=None, level="newline")]


def _pooled_video(config: PreTrainedConfig, frames: int) -> Item:
    grid = config.vision_config.image_size // config.vision_config.patch_size
    edges = _resampled(_patch_edges(config, crops=1) / config.vision_config.image_size, math.ceil(grid / 2))

    def build(index: int) -> list[Region]:
        regions = [
            Region(medium="video", index=index, frame=frame, box=box, level="grid")
            for frame in range(frames)
            for box in cells(edges, edges)
        ]
        return [*regions, Region(medium="video", index=index, frame=frames - 1, box=None, level="newline")]

    return build


def _placement(size: Sequence[int], canvas_height: int, canvas_width: int) -> tuple[int, int, int, int]:
    """Top, height, left and width, in pixels, of an image fitted into the middle of its canvas."""
    height, width = size
    if canvas_width / width < canvas_height / height:
        fitted_height, fitted_width = min(math.ceil(height * canvas_width / width), canvas_height), canvas_width
    else:
        fitted_height, fitted_width = canvas_height, min(math.ceil(width * canvas_height / height), canvas_width)
    return (canvas_height - fitted_height) // 2, fitted_height, (canvas_width - fitted_width) // 2, fitted_width


def _patch_edges(config: PreTrainedConfig, crops: int) -> Edges:
    """Pixel where each patch starts along an axis of `crops` views, and where the last one ends.

    A side that is no multiple of the patch leaves a rim that no patch sees (6 of SigLIP's 384 pixels); it is counted
    to the last patch of its view, so that the regions tile the picture.
    """
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    starts = [crop * side + step * patch for crop in range(crops) for step in range(side // patch)]
    return np.array([*starts, crops * side], dtype=np.float64)


def _resampled(edges: Edges, cells: int) -> Edges:
    """Edges of fewer cells over the same axis, as interpolation without aligned corners places them."""
    steps = len(edges) - 1
    return np.interp(even_edges(cells) * steps, np.arange(steps + 1), edges)

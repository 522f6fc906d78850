"""Where the tokens of models look that see squares of one size: in which square, and where in it.

A processor stretches a picture into such squares, cuts its margins off, or pads it, and does not say which. So boxes
lie in the squares themselves, which the inputs hold.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from iwp_transformers.geometry import anyres_items_next
from iwp_transformers.regions import Edges, Item, Medium, Region, cells, in_sequence, placeholder

__all__ = ["next_video_regions", "real_tiles", "tile_edges", "tile_pixels", "tile_regions"]

PIXELS: Mapping[Medium, str] = {"image": "pixel_values", "video": "pixel_values_videos"}
TILE_AXES, LISTED_AXES = 3, 5
"""Axes of one square, and of squares that are listed by sample, padded with black ones."""


def tile_regions(config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int) -> tuple[Region, ...]:
    """Regions of models whose tower reads squares of one size: one grid in each, however a picture became squares.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the whole model.
    inputs : mapping
        The processor's output: `input_ids`, and `pixel_values` if it made them.
    sample : int
        Row of `input_ids`.

    Returns
    -------
    tuple of Region
        One for each visual token of the sample, in sequence order; `index` counts the squares of the sample.

    Raises
    ------
    ValueError
        If `sample` is not in the batch, or if the tokens are no grid of whole patches in each square.
    """
    tiles = real_tiles(inputs)
    if not tiles:
        return in_sequence(config, inputs, sample, [], [])
    edges, classes = tile_edges(config, inputs, len(tiles))
    items = [_tile("image", tile, 0, edges, classes) for tile in tiles]
    return in_sequence(config, inputs, sample, items, [])


def tile_edges(config: PreTrainedConfig, inputs: Mapping[str, Any], count: int) -> tuple[Edges, int]:
    """Return where the cells of a tile start and the last ends, as fractions, and the class tokens in front of them.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the whole model.
    inputs : mapping
        The processor's output, with `pixel_values`.
    count : int
        Tiles of the whole batch.

    Raises
    ------
    ValueError
        If the tokens are no grid of whole patches in each tile.
    """
    tokens = int((torch.as_tensor(inputs["input_ids"]) == placeholder(config, "image")).sum())
    height, width = inputs["pixel_values"].shape[-2:]
    each, rest = divmod(tokens, count)
    per_side = _side(config.vision_config.patch_size)
    side, patches = math.isqrt(each), width // per_side
    # One more than a square is the tower's class token, which LLaVA keeps where it selects all of its features.
    classes, selected = each - side**2, getattr(config, "vision_feature_select_strategy", None)
    if rest or height != width or not side or patches % side or classes > (selected == "full"):
        msg = (
            f"`inputs` has {tokens} image tokens for {count} tiles of {height} x {width} pixels in `pixel_values`,"
            f" which are no grid of whole patches of {per_side} pixels: where they look cannot be told"
        )
        raise ValueError(msg)
    return _edges(width, per_side * (patches // side), side), classes


def next_video_regions(config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int) -> tuple[Region, ...]:
    """Regions of LLaVA-NeXT-Video: images as LLaVA-NeXT has them, and a pooled grid in each frame of a video.

    Parameters
    ----------
    config : LlavaNextVideoConfig
        Configuration of the whole model.
    inputs : mapping
        The processor's output: `input_ids`, and `image_sizes` and `pixel_values_videos` if it made them.
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
    side, cell = config.vision_config.image_size, config.vision_config.patch_size * config.spatial_pool_stride
    edges = _edges(side, cell, side // cell)
    films = inputs.get("pixel_values_videos", ())
    videos = [_film(video * len(frames), len(frames), edges) for video, frames in enumerate(films)]
    return in_sequence(config, inputs, sample, anyres_items_next(config, inputs), videos)


def tile_pixels(inputs: Mapping[str, Any], medium: Medium, tile: int) -> Tensor:
    """Return a square that the model saw.

    Parameters
    ----------
    inputs : mapping
        The processor's output.
    medium : {"image", "video"}
    tile : int
        As in `Region`.

    Returns
    -------
    torch.Tensor
        Shape (height, width, 3), float32, in [0, 1]: normalisation is undone up to a scale and a shift.
    """
    pixels = _flat(inputs[PIXELS[medium]])[tile].float().cpu().permute(1, 2, 0)
    low, high = pixels.min(), pixels.max()
    return (pixels - low) / (high - low).clamp(min=torch.finfo(torch.float32).eps)


def real_tiles(inputs: Mapping[str, Any]) -> list[int]:
    """Return which rows of the pixels the model sees: all, or those that are not black where samples are padded."""
    pixels = inputs.get("pixel_values")
    if pixels is None:
        return []
    flat = _flat(pixels)
    if pixels.ndim < LISTED_AXES:
        return list(range(len(flat)))
    tiles: list[int] = flat.flatten(1).any(dim=1).nonzero().flatten().tolist()
    return tiles


def _flat(pixels: Any) -> Tensor:
    return torch.as_tensor(pixels).reshape(-1, *pixels.shape[-TILE_AXES:])


def _side(patch: Any) -> int:
    """Return the side of a patch, which some configurations give twice."""
    return int(patch if isinstance(patch, int) else patch[0])


def _edges(side: int, cell: int, count: int) -> Edges:
    """Return where each cell starts, and where the last one ends, as fractions; a rim that is left counts to it."""
    return np.array([*(cell * number / side for number in range(count)), 1.0])


def _tile(medium: Medium, tile: int, frame: int, edges: Edges, classes: int = 0) -> Item:
    boxes = [*[None] * classes, *cells(edges, edges)]
    return lambda index: [
        Region(medium=medium, index=index, frame=frame, box=box, level="grid", tile=tile) for box in boxes
    ]


def _film(first: int, count: int, edges: Edges) -> Item:
    frames = [_tile("video", first + frame, frame, edges) for frame in range(count)]
    return lambda index: [region for frame in frames for region in frame(index)]

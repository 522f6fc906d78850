"""What a visual token covers, and how the tokens of a sequence are matched with the pictures of its inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig

__all__ = [
    "Box",
    "Edges",
    "Item",
    "Level",
    "Medium",
    "Region",
    "cells",
    "even_edges",
    "in_sequence",
    "listed",
    "placeholder",
]

Box = tuple[float, float, float, float]
Medium = Literal["image", "video"]
Level = Literal["base", "crop", "grid", "newline"]
Edges = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Region:
    """What one visual token covers.

    Parameters
    ----------
    medium : {"image", "video"}
        Kind of picture the token belongs to.
    index : int
        Which image, or which video, of the sample; each kind is counted from 0.
    frame : int
        Temporal index in the token grid, not in the video file; 0 for images.
    box : tuple of float, or None
        (left, top, right, bottom) as fractions of the original picture, in [0, 1]. None for a token that covers no
        pixel: a newline, or a patch that holds nothing but padding. Of `tile`, where that is not None.
    level : {"base", "crop", "grid", "newline"}
        "base" is the whole image shrunk into one view, "crop" a piece of it at a higher resolution, "grid" the only
        view of a model that has no such levels, "newline" a learned separator.
    tile : int, optional
        Which square that the model saw the box lies in, where it cannot be told what of the picture that square shows:
        a row of `pixel_values`, or of `pixel_values_videos`, leading axes flattened.
    """

    medium: Medium
    index: int
    frame: int
    box: Box | None
    level: Level
    tile: int | None = None


# Builds the regions of one image or video, given its index within the sample.
Item = Callable[[int], list[Region]]


def even_edges(count: int) -> Edges:
    """Return the edges of so many cells of one size, from 0 to 1."""
    return np.linspace(0.0, 1.0, count + 1)


def cells(rows: Edges, columns: Edges) -> Iterator[Box | None]:
    """Boxes between the edges, row by row, cut to the picture; None where nothing is left."""
    clear_rows, clear_columns = np.clip(rows, 0.0, 1.0).tolist(), np.clip(columns, 0.0, 1.0).tolist()
    for top, bottom in pairwise(clear_rows):
        for left, right in pairwise(clear_columns):
            yield (left, top, right, bottom) if top < bottom and left < right else None


def in_sequence(
    config: PreTrainedConfig,
    inputs: Mapping[str, Any],
    sample: int,
    images: Sequence[Item],
    videos: Sequence[Item],
    *,
    videos_at: Medium = "video",
) -> tuple[Region, ...]:
    """Return the regions of a sample's visual tokens; images and videos come apart, the text holds them in its order.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Names the placeholders.
    inputs : mapping
        Holds `input_ids`, shape (B, T).
    sample : int
        Row of `input_ids`.
    images, videos : sequence of callable
        One for each picture of the whole batch, in its order.
    videos_at : {"image", "video"}
        Whose placeholders the tokens of videos stand at.

    Raises
    ------
    NotImplementedError
        If images and videos stand at the same placeholders.
    ValueError
        If `sample` is not in the batch, or if the tokens do not match the pictures.
    """
    ids = torch.as_tensor(inputs["input_ids"]).cpu()
    if not 0 <= sample < len(ids):
        msg = f"`sample` is {sample}, expected 0 to {len(ids) - 1}: `inputs` holds {len(ids)} samples"
        raise ValueError(msg)
    of_image, of_video = ids == placeholder(config, "image"), ids == placeholder(config, videos_at)
    if videos_at == "image":
        if images and videos:
            msg = "images and videos of such a model stand at the same placeholders: which tokens are whose is not told"
            raise NotImplementedError(msg)
        of_image, of_video = of_image & bool(images), of_video & (not images)
    image_regions = iter(_of_sample("image", of_image.sum(dim=1).tolist(), sample, images))
    video_regions = iter(_of_sample("video", of_video.sum(dim=1).tolist(), sample, videos))
    visual = of_image[sample][of_image[sample] | of_video[sample]].tolist()
    return tuple(next(image_regions if is_image else video_regions) for is_image in visual)


def placeholder(config: PreTrainedConfig, medium: str) -> int:
    """Return the id of a medium's placeholder, -1 where there is none."""
    names = (f"{medium}_token_id", f"{medium}_token_index")
    return next((token for name in names if isinstance(token := getattr(config, name, None), int)), -1)


def _of_sample(medium: Medium, tokens: Sequence[int], sample: int, items: Sequence[Item]) -> list[Region]:
    # Pictures lie in `inputs` without saying whose they are: the tokens of the samples before tell.
    start, stop = sum(tokens[:sample]), sum(tokens[: sample + 1])
    regions: list[Region] = []
    position = index = 0
    for item in items:
        if position >= stop:
            break
        built = item(index)
        if position >= start:
            regions += built
            index += 1
        position += len(built)
    if len(regions) != stop - start:
        msg = (
            f"`inputs` has {stop - start} {medium} tokens in sample {sample}, but its {medium}s make {len(regions)}: "
            "expected the whole, unchanged output of the processor that belongs to the model"
        )
        raise ValueError(msg)
    return regions


def listed(inputs: Mapping[str, Any], name: str) -> list[Any]:
    """Return an entry of the inputs as a list, an empty one where it is missing."""
    values: list[Any] = torch.as_tensor(inputs.get(name, ())).tolist()
    return values

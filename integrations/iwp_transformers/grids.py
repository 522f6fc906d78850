"""Where the tokens of models of native resolution look: one grid over the whole picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from iwp_transformers.regions import Item, Medium, Region, cells, even_edges, in_sequence, listed

__all__ = ["frame_regions", "grid_regions", "sized_regions"]


def grid_regions(
    config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int, *, videos_at: Medium = "video"
) -> tuple[Region, ...]:
    """Regions of Qwen2-VL and what is laid out like it: a grid over each image and each temporal patch of a video.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the whole model, such as a Qwen2VLConfig.
    inputs : mapping
        The processor's output: `input_ids`, and `image_grid_thw` and `video_grid_thw`, `image_merge_sizes` and
        `video_merge_sizes` if it made them.
    sample : int
        Row of `input_ids`.
    videos_at : {"image", "video"}
        Whose placeholders the tokens of videos stand at.

    Returns
    -------
    tuple of Region
        One for each visual token of the sample, in sequence order.

    Raises
    ------
    NotImplementedError
        If images and videos stand at the same placeholders.
    ValueError
        If `sample` is not in the batch, or if the tokens do not match the pictures of `inputs`.
    """

    def item(medium: Medium, thw: Sequence[int], merge: int) -> Item:
        frames, rows, columns = thw[0], even_edges(thw[1] // merge), even_edges(thw[2] // merge)
        return lambda index: [
            Region(medium=medium, index=index, frame=frame, box=box, level="grid")
            for frame in range(frames)
            for box in cells(rows, columns)
        ]

    def items(medium: Medium) -> list[Item]:
        grids = listed(inputs, f"{medium}_grid_thw")
        merges = listed(inputs, f"{medium}_merge_sizes") or [config.vision_config.spatial_merge_size for _ in grids]
        return [item(medium, thw, merge) for thw, merge in zip(grids, merges, strict=True)]

    return in_sequence(config, inputs, sample, items("image"), items("video"), videos_at=videos_at)


def frame_regions(config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int) -> tuple[Region, ...]:
    """Regions of GLM-4V, laid out like Qwen2-VL's: videos stand at placeholders of images, a run for each frame.

    Parameters
    ----------
    config, inputs, sample
        As of `grid_regions`.

    Raises
    ------
    NotImplementedError
        If `inputs` holds images and videos, which no placeholder tells apart.
    ValueError
        If `sample` is not in the batch, or if the tokens do not match the pictures of `inputs`.
    """
    return grid_regions(config, inputs, sample, videos_at="image")


def sized_regions(config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int) -> tuple[Region, ...]:
    """Regions of Pixtral's tower: one grid over the picture, of the size that the processor resized it to.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the whole model, such as a Mistral3Config.
    inputs : mapping
        The processor's output: `input_ids`, and `image_sizes` if it made them.
    sample : int
        Row of `input_ids`.

    Returns
    -------
    tuple of Region
        One for each visual token of the sample, in sequence order; tokens that break rows are text.

    Raises
    ------
    ValueError
        If `sample` is not in the batch, or if the tokens do not match the pictures of `inputs`.
    """
    side = config.vision_config.patch_size * getattr(config, "spatial_merge_size", 1)

    def image(size: Sequence[int]) -> Item:
        rows, columns = (even_edges(length // side) for length in size)
        return lambda index: [
            Region(medium="image", index=index, frame=0, box=box, level="grid") for box in cells(rows, columns)
        ]

    return in_sequence(config, inputs, sample, [image(size) for size in listed(inputs, "image_sizes")], [])

"""Seeing which visual tokens were kept: the pictures, with what the model dropped dimmed."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from iwp_transformers.families import family_of
from iwp_transformers.gallery import Panel, draw_gallery
from iwp_transformers.record import PruningRecord
from iwp_transformers.regions import Medium, Region
from iwp_transformers.tiles import tile_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

# A still picture, or the frames of a video: Pillow images, or arrays (height, width, 3) of bytes or of fractions.
Still = Image.Image | ArrayLike
Pixels = NDArray[np.uint8]

LEVEL_NAMES = {"base": "whole view", "crop": "crops", "grid": ""}
FRAMES_SHOWN, TILES_SHOWN = 8, 16
# An array that is one picture: height and width, or these and channels: grey, or colours with or without opacity.
GREY_AXES, CHANNELS = 2, (1, 3, 4)
# Fractions that resampling has led out of [0, 1] are cut off; further out they are something else.
OVERSHOOT = 0.1
LONGEST_SIDE = 900  # pixels of a panel; more would only make the file larger


def kept_mask(regions: Sequence[Region], kept: ArrayLike, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which pixels of one picture a kept token covers.

    Parameters
    ----------
    regions : sequence of Region
        Of one picture; of one level too, if base view and crops are to be told apart.
    kept : array_like of bool, shape (len(regions),)
        Whether each region's token was kept.
    size : tuple of int
        (height, width) of the picture in pixels.

    Returns
    -------
    numpy.ndarray of bool, shape (height, width)
        True where at least one kept region lies.

    Raises
    ------
    ValueError
        If `kept` and `regions` differ in length.

    Examples
    --------
    >>> half = Region(medium="image", index=0, frame=0, box=(0.0, 0.0, 0.5, 1.0), level="grid")
    >>> kept_mask([half], [True], (1, 4))
    array([[ True,  True, False, False]])
    """
    flags = np.asarray(kept, dtype=bool)
    if flags.shape != (len(regions),):
        msg = f"`kept` has shape {flags.shape}, expected one flag for each of the {len(regions)} `regions`"
        raise ValueError(msg)
    height, width = size
    mask = np.zeros(size, dtype=bool)
    for region, flag in zip(regions, flags, strict=True):
        if flag and region.box is not None:
            left, top, right, bottom = region.box
            # Rounding shared edges alike leaves neither seams nor overlaps between neighbours.
            mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask


def dim_dropped(picture: Still, regions: Sequence[Region], kept: ArrayLike) -> Pixels:
    """Paint a picture with kept regions clear and all else grey and dark.

    Parameters
    ----------
    picture : PIL.Image.Image or array_like, shape (height, width, 3) or (height, width)
        Bytes, or fractions in [0, 1].
    regions : sequence of Region
        Of this picture.
    kept : array_like of bool, shape (len(regions),)
        Whether each region's token was kept.

    Returns
    -------
    numpy.ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    ValueError
        If `kept` and `regions` differ in length.
    """
    colours = _rgb(picture)
    mask = kept_mask(regions, kept, (colours.shape[0], colours.shape[1]))
    luminance = colours @ np.array([0.299, 0.587, 0.114])
    # The offset tells dropped black from kept black.
    dimmed = np.repeat((0.25 * luminance + 45)[..., None], 3, axis=2).astype(np.uint8)
    return np.where(mask[..., None], colours, dimmed)


def kept_tokens_figure(
    record: PruningRecord,
    inputs: Mapping[str, Any],
    images: Sequence[Still] | Still = (),
    *,
    model: "nn.Module",
    videos: Sequence[Sequence[Still] | NDArray[Any]] | Sequence[Still] | NDArray[Any] = (),
    sample: int = 0,
    title: str | None = None,
) -> "Figure":
    """Draw the pictures of a sample with the tokens that were kept clear and outlined, and the others dimmed.

    Parameters
    ----------
    record : PruningRecord
        Of the prefill to show, such as `session.records[-1]`.
    inputs : mapping
        The processor's output that was given to the model.
    images : PIL.Image.Image or array_like, or a sequence of them
        Images of the sample, in the order in which its text refers to them; a single one need not be in a list. Arrays
        have shape (height, width), or (height, width, channels) with 1, 3 or 4 channels, and hold bytes or fractions in
        [0, 1]. Not needed for models of which only the tiles that the model saw can be drawn (see Notes).
    model : torch.nn.Module
        The model that was pruned.
    videos : sequence
        Videos of the sample, each a sequence of frames or an array (frames, height, width, 3); a single one need not be
        in a list.
    sample : int
        Row of the batch.
    title : str, optional
        Heading; by default the layer and the number of tokens kept.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that no window shows; `figure.savefig("kept.png")` writes it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    NotImplementedError
        If it is not known which part of a picture each token of this model stands for.
    TypeError
        If the model cannot be pruned.
    ValueError
        If `sample` is not in the batch or has no picture, if pictures, tokens and record do not match, or if an array
        holds neither bytes nor fractions.

    Notes
    -----
    An image that the model saw at two resolutions gets two panels. Of a video, at most eight evenly spaced steps of the
    token grid are drawn, each over its middle frame.

    Many processors turn a picture into square tiles and do not record whether they stretched, cropped or padded it.
    Then each tile that the model saw is drawn as a panel of its own, with its colours scaled to the full range.
    """
    config: Any = model.config
    regions = family_of(model).regions(config, inputs, sample)
    visual, kept = record.visual[sample].cpu(), record.kept[sample].cpu()
    if "audio" in record.modalities:
        visual = visual[~torch.isin(visual, record.modalities["audio"][sample].cpu())]
    if len(regions) != len(visual):
        msg = f"`inputs` has {len(regions)} visual tokens in sample {sample}, `record` {len(visual)}: expected the same"
        raise ValueError(msg)
    if not regions:
        msg = f"`sample` is {sample}, which has no visual tokens: expected a sample with a picture"
        raise ValueError(msg)
    flags = torch.isin(visual, kept).numpy()
    stills = cast(Sequence[Still], [images] if _is_still(images) else images)
    clips = cast(Sequence[Sequence[Still]], [videos] if len(videos) and all(map(_is_still, videos)) else videos)
    on_tiles = {region.medium for region in regions if region.tile is not None}
    groups = [_tile_panels(inputs, medium, regions, flags) for medium in sorted(on_tiles)]
    if "image" not in on_tiles:
        _check_count("images", len(stills), len({region.index for region in regions if region.medium == "image"}))
        groups += [_image_panels(image, index, regions, flags) for index, image in enumerate(stills)]
    if "video" not in on_tiles:
        _check_count("videos", len(clips), len({region.index for region in regions if region.medium == "video"}))
        groups += [_video_panels(video, index, regions, flags) for index, video in enumerate(clips)]
    heading = title or f"Layer {record.layer}: {_share(flags)} visual tokens kept"
    return draw_gallery(groups, heading, _caption(regions, flags))


def _image_panels(image: Still, index: int, regions: Sequence[Region], flags: NDArray[np.bool_]) -> list[Panel]:
    panels = []
    for level, name in LEVEL_NAMES.items():
        chosen = [n for n, r in enumerate(regions) if (r.medium, r.index, r.level) == ("image", index, level)]
        if chosen:
            heading = f"image {index + 1}, {name}" if name else f"image {index + 1}"
            panels.append(_panel(image, [regions[n] for n in chosen], flags[chosen], heading))
    return panels


def _video_panels(
    video: Sequence[Still], index: int, regions: Sequence[Region], flags: NDArray[np.bool_]
) -> list[Panel]:
    if not len(video):
        msg = f"`videos` has no frames in video {index + 1}, expected at least one"
        raise ValueError(msg)
    own = [n for n, r in enumerate(regions) if (r.medium, r.index) == ("video", index) and r.level != "newline"]
    by_frame = {frame: list(chosen) for frame, chosen in groupby(own, key=lambda n: regions[n].frame)}
    shown = sorted({round(step) for step in np.linspace(0, len(by_frame) - 1, FRAMES_SHOWN)})
    panels = []
    for frame in shown:
        middle = int((frame + 0.5) * len(video) / len(by_frame))
        chosen = by_frame[frame]
        heading = f"video {index + 1}, step {frame + 1}/{len(by_frame)}"
        panels.append(_panel(video[middle], [regions[n] for n in chosen], flags[chosen], heading))
    return panels


def _tile_panels(
    inputs: Mapping[str, Any], medium: Medium, regions: Sequence[Region], flags: NDArray[np.bool_]
) -> list[Panel]:
    tiles = sorted({region.tile for region in regions if region.medium == medium and region.tile is not None})
    shown = sorted({round(step) for step in np.linspace(0, len(tiles) - 1, TILES_SHOWN)})
    panels = []
    for place in shown:
        chosen = [n for n, r in enumerate(regions) if (r.medium, r.tile) == (medium, tiles[place])]
        pixels = tile_pixels(inputs, medium, tiles[place]).numpy()
        name = "tile" if medium == "image" else "frame"
        heading = f"{name} {place + 1}/{len(tiles)}, as the model saw it"
        panels.append(_panel(pixels, [regions[n] for n in chosen], flags[chosen], heading))
    return panels


def _panel(picture: Still, regions: Sequence[Region], flags: NDArray[np.bool_], heading: str) -> Panel:
    image = Image.fromarray(_rgb(picture))
    scale = LONGEST_SIDE / max(image.size)
    # Small pictures are enlarged too, for a token's border is finer than their pixels.
    resized = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return Panel(
        pixels=dim_dropped(resized, regions, flags),
        kept=kept_mask(regions, flags, (resized.height, resized.width)),
        aspect=image.width / image.height,
        title=f"{heading}\n{_share(flags)}",
    )


def _caption(regions: Sequence[Region], flags: NDArray[np.bool_]) -> str:
    newlines = np.array([region.level == "newline" for region in regions], dtype=bool)
    padding = np.array([region.box is None for region in regions], dtype=bool) & ~newlines
    frames = {(region.index, region.frame) for region in regions if region.medium == "video"}
    notes = ["clear and outlined: kept, dimmed: dropped"]
    if newlines.any():
        notes.append(f"newline tokens: {_share(flags[newlines])} kept")
    if padding.any():
        notes.append(f"tokens of padding alone: {_share(flags[padding])} kept")
    hidden = [count for _, count in _frame_counts(frames) if count > FRAMES_SHOWN]
    if hidden:
        notes.append(f"{FRAMES_SHOWN} steps shown of {', '.join(map(str, hidden))}")
    return "   ·   ".join(notes)


def _frame_counts(frames: set[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(video, len(list(own))) for video, own in groupby(sorted(frames), key=lambda pair: pair[0])]


def _share(flags: NDArray[np.bool_]) -> str:
    return f"{flags.sum()} of {flags.size} ({100 * flags.mean():.1f} %)"


def _check_count(name: str, given: int, expected: int) -> None:
    if given != expected:
        msg = f"`{name}` has {given} entries, expected {expected}: every one that the sample's text holds, in its order"
        raise ValueError(msg)


def _is_still(picture: Any) -> bool:
    if isinstance(picture, Image.Image):
        return True
    shape: tuple[int, ...] = getattr(picture, "shape", ())
    return len(shape) == GREY_AXES or (len(shape) == GREY_AXES + 1 and shape[-1] in CHANNELS)


def _rgb(picture: Still) -> Pixels:
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    pixels = np.asarray(picture)
    are_fractions = np.issubdtype(pixels.dtype, np.floating) or pixels.dtype == np.bool_
    low, high = (-OVERSHOOT, 1 + OVERSHOOT) if are_fractions else (0, 255)
    if not (pixels >= low).all() or not (pixels <= high).all():
        msg = (
            f"a picture holds {pixels.dtype} from {pixels.min()} to {pixels.max()}, "
            "expected integers from 0 to 255 or fractions from 0 to 1"
        )
        raise ValueError(msg)
    if are_fractions:
        pixels = np.round(np.clip(pixels, 0.0, 1.0) * 255)
    pixels = pixels[..., 0] if pixels.ndim > GREY_AXES and pixels.shape[-1] == 1 else pixels
    return np.asarray(Image.fromarray(pixels.astype(np.uint8)).convert("RGB"))

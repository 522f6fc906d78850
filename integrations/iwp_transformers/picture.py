"""Seeing which visual tokens were kept: the pictures, with what the model dropped dimmed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from iwp_transformers.families import family_of
from iwp_transformers.geometry import Region
from iwp_transformers.record import PruningRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

# A still picture, or the frames of a video: Pillow images, or arrays (height, width, 3) of bytes or of fractions.
Still = Image.Image | ArrayLike
Pixels = NDArray[np.uint8]

LEVEL_NAMES = {"base": "whole view", "crop": "crops", "grid": ""}
FRAMES_SHOWN = 8
# Inches.
LINE_WIDTH, PANEL_HEIGHT, GAP, TITLE_HEIGHT, HEAD_HEIGHT, FOOT_HEIGHT = 10.0, 3.0, 0.12, 0.42, 0.45, 0.35
LONGEST_SIDE = 900  # pixels of a panel; more would only make the file larger


@dataclass(frozen=True)
class _Panel:
    pixels: Pixels
    aspect: float
    title: str


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
    images: Sequence[Still] = (),
    *,
    model: "nn.Module",
    videos: Sequence[Sequence[Still] | NDArray[Any]] = (),
    sample: int = 0,
    title: str | None = None,
) -> "Figure":
    """Draw the pictures of a sample with the tokens that were kept clear and the others dimmed.

    Parameters
    ----------
    record : PruningRecord
        Of the prefill to show, such as `session.records[-1]`.
    inputs : mapping
        The processor's output that was given to the model.
    images : sequence of PIL.Image.Image or array_like
        Images of the sample, in the order of its text.
    model : torch.nn.Module
        The model that was pruned.
    videos : sequence
        Videos of the sample, each a sequence of frames or an array (frames, height, width, 3).
    sample : int
        Row of the batch.
    title : str, optional
        Heading; by default the layer and the number of tokens kept.

    Returns
    -------
    matplotlib.figure.Figure
        Belonging to no window and no global state; `figure.savefig("kept.png")` writes it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If the model's family is not supported.
    ValueError
        If `sample` is not in the batch or has no picture, or if pictures, tokens and record do not match.

    Notes
    -----
    An image that the model saw at two resolutions gets two panels. A video shows at most eight steps of its token grid,
    evenly spread, each over its middle frame.
    """
    config: Any = model.config
    regions = family_of(model).regions(config, inputs, sample)
    visual, kept = record.visual[sample].cpu(), record.kept[sample].cpu()
    if len(regions) != len(visual):
        msg = f"`inputs` has {len(regions)} visual tokens in sample {sample}, `record` {len(visual)}: expected the same"
        raise ValueError(msg)
    if not regions:
        msg = f"`sample` is {sample}, which has no visual tokens: expected a sample with a picture"
        raise ValueError(msg)
    flags = torch.isin(visual, kept).numpy()
    _check_count("images", len(images), len({region.index for region in regions if region.medium == "image"}))
    _check_count("videos", len(videos), len({region.index for region in regions if region.medium == "video"}))
    groups = [_image_panels(image, index, regions, flags) for index, image in enumerate(images)]
    groups += [_video_panels(video, index, regions, flags) for index, video in enumerate(videos)]
    heading = title or f"Layer {record.layer}: {_share(flags)} visual tokens kept"
    return _draw(groups, heading, _caption(regions, flags))


def _image_panels(image: Still, index: int, regions: Sequence[Region], flags: NDArray[np.bool_]) -> list[_Panel]:
    panels = []
    for level, name in LEVEL_NAMES.items():
        chosen = [n for n, r in enumerate(regions) if (r.medium, r.index, r.level) == ("image", index, level)]
        if chosen:
            heading = f"image {index + 1}, {name}" if name else f"image {index + 1}"
            panels.append(_panel(image, [regions[n] for n in chosen], flags[chosen], heading))
    return panels


def _video_panels(
    video: Sequence[Still] | NDArray[Any], index: int, regions: Sequence[Region], flags: NDArray[np.bool_]
) -> list[_Panel]:
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


def _panel(picture: Still, regions: Sequence[Region], flags: NDArray[np.bool_], heading: str) -> _Panel:
    image = Image.fromarray(_rgb(picture))
    scale = LONGEST_SIDE / max(image.size)
    # Small pictures are enlarged too, for a token's border is finer than their pixels.
    resized = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return _Panel(dim_dropped(resized, regions, flags), image.width / image.height, f"{heading}\n{_share(flags)}")


def _draw(groups: Sequence[Sequence[_Panel]], heading: str, caption: str) -> "Figure":
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 an optional dependency of this one function
    except ImportError as error:
        msg = "a picture of the kept tokens needs matplotlib: pip install 'iwp[plot]'"
        raise ImportError(msg) from error
    lines = _lines(groups)
    heights = [_line_height(line) for line in lines]
    total = HEAD_HEIGHT + sum(heights) + len(lines) * (TITLE_HEIGHT + GAP) + FOOT_HEIGHT
    figure = Figure(figsize=(LINE_WIDTH, total))
    top = total - HEAD_HEIGHT
    for line, height in zip(lines, heights, strict=True):
        widths = [panel.aspect * height for panel in line]
        left = (LINE_WIDTH - sum(widths) - GAP * (len(line) - 1)) / 2
        for panel, width in zip(line, widths, strict=True):
            place = (left / LINE_WIDTH, (top - TITLE_HEIGHT - height) / total, width / LINE_WIDTH, height / total)
            axes = figure.add_axes(place)
            axes.imshow(panel.pixels, aspect="auto", interpolation="antialiased")
            axes.set_title(panel.title, fontsize=8, pad=4)
            axes.set_axis_off()
            left += width + GAP
        top -= TITLE_HEIGHT + height + GAP
    figure.text(0.5, 1 - 0.5 * HEAD_HEIGHT / total, heading, ha="center", va="center", fontsize=12, weight="bold")
    figure.text(0.5, 0.5 * FOOT_HEIGHT / total, caption, ha="center", va="center", fontsize=8, color="0.35")
    return figure


def _lines(groups: Sequence[Sequence[_Panel]]) -> list[list[_Panel]]:
    """Flow the groups into lines; the panels of a group, which belong together, share one."""
    lines: list[list[_Panel]] = []
    for group in groups:
        if lines and _line_height([*lines[-1], *group]) == PANEL_HEIGHT:
            lines[-1] += group
        else:
            lines.append(list(group))
    return lines


def _line_height(line: Sequence[_Panel]) -> float:
    room = LINE_WIDTH - GAP * (len(line) + 1)
    return min(PANEL_HEIGHT, room / sum(panel.aspect for panel in line))


def _caption(regions: Sequence[Region], flags: NDArray[np.bool_]) -> str:
    newlines = np.array([region.level == "newline" for region in regions], dtype=bool)
    padding = np.array([region.box is None for region in regions], dtype=bool) & ~newlines
    frames = {(region.index, region.frame) for region in regions if region.medium == "video"}
    notes = ["clear: kept, dimmed: dropped"]
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


def _rgb(picture: Still) -> Pixels:
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    pixels = np.asarray(picture)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.round(np.clip(pixels, 0.0, 1.0) * 255)
    return np.asarray(Image.fromarray(pixels.astype(np.uint8)).convert("RGB"))

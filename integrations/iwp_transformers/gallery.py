"""Panels in lines on one figure, each picture with an outline around what is kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Panel", "draw_gallery"]

# Inches. Lines are made of panels of PANEL_HEIGHT, or of LOWEST if a group needs it, and are then drawn to the width of
# the widest one, though no panel higher than HIGHEST.
WIDEST, NARROWEST, LOWEST, PANEL_HEIGHT, HIGHEST = 10.0, 4.8, 1.5, 3.0, 5.0
GAP, PANEL_TITLE, NARROWEST_CELL = 0.12, 0.42, 1.45
# Of a line of text, and of a letter, in the heading and in the caption.
HEADING_LINE, HEADING_LETTER, CAPTION_LINE, CAPTION_LETTER, AROUND_TEXT = 0.22, 0.1, 0.15, 0.06, 0.2
# Width over height; longer pictures are drawn thicker than they are, or nothing would be seen of them.
LONGEST = 20.0
# Seen on light pictures for its dark rim, and on dark ones for itself.
OUTLINE, RIM, LINE = "#ffd400", "#202020", 1.0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture to draw.

    Attributes
    ----------
    pixels : numpy.ndarray of uint8, shape (height, width, 3)
    kept : numpy.ndarray of bool, shape (height, width)
        What is outlined.
    aspect : float
        Width over height that the picture is drawn with.
    title : str
    """

    pixels: NDArray[np.uint8]
    kept: NDArray[np.bool_]
    aspect: float
    title: str

    def width(self, height: float) -> float:
        """Return the width of the picture drawn at a height."""
        return height * min(max(self.aspect, 1 / LONGEST), LONGEST)


def draw_gallery(groups: Sequence[Sequence[Panel]], heading: str, caption: str) -> "Figure":
    """Draw groups of panels in lines.

    Parameters
    ----------
    groups : sequence of sequences of Panel
        Panels of one group share a line; groups share one where there is room.
    heading, caption : str
        Above and below; long ones are broken into lines.

    Returns
    -------
    matplotlib.figure.Figure
        As wide as its widest line, within limits, and as high as its lines need.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 an optional dependency of this one function
    except ImportError as error:
        msg = "a picture of the kept tokens needs matplotlib: pip install matplotlib"
        raise ImportError(msg) from error
    lines = _lines(groups)
    width = max(NARROWEST, *(min(WIDEST, _line_width(line, PANEL_HEIGHT)) for line in lines))
    heights = [_line_height(line, width) for line in lines]
    head = AROUND_TEXT + HEADING_LINE * _text_lines(heading, width / HEADING_LETTER)
    foot = AROUND_TEXT + CAPTION_LINE * _text_lines(caption, width / CAPTION_LETTER)
    total = head + sum(heights) + len(lines) * (PANEL_TITLE + GAP) + foot
    figure = Figure(figsize=(width, total))
    top = total - head
    for line, height in zip(lines, heights, strict=True):
        left = (width - _line_width(line, height)) / 2 + GAP
        for panel in line:
            cell, drawn = _cell(panel, height), panel.width(height)
            place = (left + (cell - drawn) / 2, top - PANEL_TITLE - height, drawn, height)
            _draw_panel(figure, panel, (place[0] / width, place[1] / total, drawn / width, height / total))
            left += cell + GAP
        top -= PANEL_TITLE + height + GAP
    middle: dict[str, Any] = {"ha": "center", "va": "center", "wrap": True}
    figure.text(0.5, 1 - 0.5 * head / total, heading, fontsize=12, weight="bold", **middle)
    figure.text(0.5, 0.5 * foot / total, caption, fontsize=8, color="0.35", **middle)
    return figure


def _draw_panel(figure: "Figure", panel: Panel, place: tuple[float, float, float, float]) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415 as above

    axes = figure.add_axes(place)
    axes.imshow(panel.pixels, aspect="auto", interpolation="antialiased")
    axes.set_title(panel.title, fontsize=8, pad=4)
    axes.set_axis_off()
    if panel.kept.any():
        # A rim of what is not kept around the picture closes the outline at its edges.
        framed = np.pad(panel.kept, 1).astype(np.float32)
        x, y = np.arange(framed.shape[1]) - 1, np.arange(framed.shape[0]) - 1
        outline = axes.contour(x, y, framed, levels=[0.5], colors=OUTLINE, linewidths=LINE)
        outline.set(path_effects=[withStroke(linewidth=3 * LINE, foreground=RIM)], clip_on=False)


def _cell(panel: Panel, height: float) -> float:
    return max(panel.width(height), NARROWEST_CELL)


def _line_width(line: Sequence[Panel], height: float) -> float:
    return sum(_cell(panel, height) for panel in line) + GAP * (len(line) + 1)


def _lines(groups: Sequence[Sequence[Panel]]) -> list[list[Panel]]:
    # Flow the groups into lines; a group that would be drawn too small in one is broken evenly.
    lines: list[list[Panel]] = []
    for group in (part for whole in groups for part in _broken(whole)):
        if lines and _line_width([*lines[-1], *group], PANEL_HEIGHT) <= WIDEST:
            lines[-1] += group
        else:
            lines.append(list(group))
    return lines


def _broken(group: Sequence[Panel]) -> list[Sequence[Panel]]:
    fitting = sum(_line_width(group[: count + 1], LOWEST) <= WIDEST for count in range(len(group)))
    lines = math.ceil(len(group) / max(1, fitting))
    size = math.ceil(len(group) / lines)
    return [group[start : start + size] for start in range(0, len(group), size)]


def _line_height(line: Sequence[Panel], width: float) -> float:
    # The height at which the line fills the width, found by halving, since narrow cells do not grow with it.
    low, high = 0.0, HIGHEST
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _line_width(line, middle) <= width else (low, middle)
    return low


def _text_lines(text: str, letters: float) -> int:
    return sum(math.ceil(max(1, len(line)) / letters) for line in text.splitlines() or [""])

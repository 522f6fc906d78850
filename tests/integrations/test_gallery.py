"""How panels are laid out and outlined: seen on the drawn figure, pixel by pixel where it matters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iwp_transformers.gallery import Panel, draw_gallery


def panel(
    aspect: float = 1.0, *, kept: NDArray[np.bool_] | None = None, title: str = "image 1\n6 of 24 (25.0 %)"
) -> Panel:
    """Black picture."""
    shape = (120, max(1, round(120 * aspect)))
    mask = np.zeros(shape, dtype=bool) if kept is None else kept
    return Panel(pixels=np.zeros((*mask.shape, 3), np.uint8), kept=mask, aspect=aspect, title=title)


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """Pixels of the whole figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def inside(figure: Figure) -> NDArray[np.uint8]:
    """Pixels of the figure's only picture."""
    pixels = drawn(figure)
    place = figure.axes[0].get_window_extent()
    rows = slice(round(len(pixels) - place.y1), round(len(pixels) - place.y0))
    return pixels[rows, round(place.x0) : round(place.x1)]


def is_yellow(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the outline is."""
    return np.asarray((pixels[..., 0] > 150) & (pixels[..., 2] < 100))


def test_kept_black_is_outlined() -> None:
    """Around the kept quarter of a black picture runs a line, at the picture's own edges too; nothing else is drawn."""
    kept = np.zeros((120, 120), dtype=bool)
    kept[:60, :60] = True

    outline = is_yellow(inside(draw_gallery([[panel(kept=kept)]], "", "")))

    height, width = outline.shape
    near = 4
    edges = (
        outline[:near],
        outline[:, :near],
        outline[height // 2 - near :][: 2 * near],
        outline[:, width // 2 - near :][:, : 2 * near],
    )
    seen = (edges[0].any(axis=0), edges[1].any(axis=1), edges[2].any(axis=0), edges[3].any(axis=1))
    for line in seen:
        half = len(line) // 2
        assert line[near : half - near].all()
        assert not line[half + near :].any()
    core = outline[near : height // 2 - near, near : width // 2 - near]
    assert not core.any()


@pytest.mark.parametrize("flag", [True, False])
def test_picture_kept_as_a_whole_or_not_at_all_is_drawn(flag: bool) -> None:
    """With an outline around all of it, or none."""
    outline = is_yellow(inside(draw_gallery([[panel(kept=np.full((120, 120), flag))]], "", "")))

    assert outline.any() == flag
    assert not outline[10:-10, 10:-10].any()


LAYOUTS: dict[str, list[list[float]]] = {
    "one square": [[1.0]],
    "one photograph": [[1.5]],
    "one panorama": [[6.0]],
    "two views": [[1.33, 1.33]],
    "six images": [[1.0], [0.7], [1.5], [1.5], [2.0], [0.5]],
    "eight frames": [[1.78] * 8],
    "thin and thick": [[1000.0], [0.001], [1.0]],
    "twenty thin ones": [[0.05]] * 20,
}


def gallery(groups: Sequence[Sequence[float]]) -> Figure:
    """Figure of panels of these aspects."""
    return draw_gallery(
        [[panel(aspect) for aspect in group] for group in groups], "Layer 4: 6 of 24 kept", "clear: kept"
    )


@pytest.mark.parametrize(
    "name", ["one square", "one photograph", "one panorama", "two views", "six images", "eight frames"]
)
def test_lines_fill_the_figure(name: str) -> None:
    """Pictures take at least nine tenths of the width of every line; of most figures two thirds of the area."""
    figure = gallery(LAYOUTS[name])

    lines: dict[int, float] = {}
    for axes in figure.axes:
        place = axes.get_position()
        lines[round(100 * place.y0)] = lines.get(round(100 * place.y0), 0.0) + place.width
    assert all(share > 0.9 for share in lines.values())
    area = sum(axes.get_position().width * axes.get_position().height for axes in figure.axes)
    assert area > (0.5 if name == "one panorama" else 0.66)


@pytest.mark.parametrize("name", LAYOUTS)
def test_nothing_overlaps_or_leaves_the_figure(name: str) -> None:
    """Neither pictures nor their titles, heading and caption."""
    figure = gallery(LAYOUTS[name])
    drawn(figure)

    titles = [axes.title.get_window_extent() for axes in figure.axes]
    texts = [text.get_window_extent() for text in figure.texts]
    pictures = [axes.get_window_extent() for axes in figure.axes]
    boxes: list[Any] = [*titles, *texts, *pictures]
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_thin_pictures_can_be_seen() -> None:
    """A line of one pixel is at least a tenth of an inch thick."""
    figure = gallery(LAYOUTS["thin and thick"])

    sizes = [axes.get_window_extent().size / figure.dpi for axes in figure.axes]
    assert min(map(min, sizes)) > 0.1


def test_long_heading_and_caption_are_broken() -> None:
    """They stay on the figure, clear of the pictures."""
    figure = draw_gallery([[panel()]], "word " * 60, "word " * 120)
    drawn(figure)

    heading, caption = (text.get_window_extent() for text in figure.texts)
    (title,) = (axes.title.get_window_extent() for axes in figure.axes)
    assert heading.x0 >= 0
    assert heading.y1 <= figure.bbox.y1
    assert heading.y0 >= title.y1
    assert 0 <= caption.y0 < caption.y1 <= figure.axes[0].get_window_extent().y0

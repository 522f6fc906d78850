"""Pictures of coloured handwritten digits on a grid, over clutter and noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iwp_miniature.digits import SIZE, DigitBank

__all__ = ["CELL", "COLORS", "STYLES", "DigitObject", "Layout", "Scene", "Style", "draw_layout", "render"]

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.15, 0.15),
    "green": (0.15, 0.9, 0.2),
    "blue": (0.25, 0.45, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "cyan": (0.1, 0.9, 0.9),
    "purple": (0.85, 0.25, 0.95),
    "white": (1.0, 1.0, 1.0),
}
"""Names and RGB of the inks, in [0, 1]."""

CELL = 24
"""Width and height of a cell of the grid, in pixels."""

T = TypeVar("T")

Style = Literal["sparse", "dense"]
STYLES: dict[Style, tuple[float, float]] = {"sparse": (0.25, 0.5625), "dense": (0.75, 1.0)}
"""Least and greatest share of the cells that hold a digit: 4 to 9, and 12 to 16, of a 4 by 4 grid."""


@dataclass(frozen=True)
class DigitObject:
    """One digit of a scene.

    Parameters
    ----------
    digit : int
    color : str
        A key of `COLORS`.
    row, column : int
        Cell of the grid, from 0.
    top, left : int
        Corner in the picture, in pixels; the digit is `SIZE` wide and high.
    """

    digit: int
    color: str
    row: int
    column: int
    top: int
    left: int


@dataclass(frozen=True)
class Layout:
    """The digits of a scene and their places, before anything is drawn.

    Parameters
    ----------
    rows, columns : int
        Cells of the grid.
    style : {"sparse", "dense"}
        Few digits or many.
    objects : tuple of DigitObject
        In reading order.
    """

    rows: int
    columns: int
    style: Style
    objects: tuple[DigitObject, ...]


@dataclass(frozen=True)
class Scene:
    """A layout and its picture.

    Parameters
    ----------
    layout : Layout
        What it shows.
    pixels : ndarray of uint8, shape (CELL * rows, CELL * columns, 3)
        The picture.
    """

    layout: Layout
    pixels: NDArray[np.uint8]

    @property
    def image(self) -> Image.Image:
        """The picture for an image processor."""
        return Image.fromarray(self.pixels)


def draw_layout(
    rng: np.random.Generator, *, style: Style = "sparse", rows: int = 4, columns: int = 4, any_digit: float = 0.0
) -> Layout:
    """Place digits at random.

    Parameters
    ----------
    rng : numpy.random.Generator
    style : {"sparse", "dense"}
    rows, columns : int
        Cells of the grid.
    any_digit : float
        Probability that any digit may stand in the layout. Otherwise none is above a random limit, so that every digit
        is often the largest; but then a 9 is twenty times as rare as a 0.

    Returns
    -------
    Layout
        Digits and colours have frequencies of their own in each layout, so that some occur once and some often.

    Examples
    --------
    >>> len(draw_layout(np.random.default_rng(0), style="dense").objects) >= 12
    True
    """
    least, most = (round(share * rows * columns) for share in STYLES[style])
    count = int(rng.integers(least, most + 1))
    cells = np.sort(rng.permutation(rows * columns)[:count])
    limit = 9 if any_digit and rng.random() < any_digit else int(rng.integers(2, 10))
    digits = _skewed(rng, range(limit + 1), count)
    colors = _skewed(rng, list(COLORS), count)
    corners = rng.integers(0, CELL - SIZE + 1, (count, 2))
    objects = []
    for cell, digit, color, (down, right) in zip(cells.tolist(), digits, colors, corners.tolist(), strict=True):
        row, column = divmod(cell, columns)
        objects.append(DigitObject(digit, color, row, column, row * CELL + down, column * CELL + right))
    return Layout(rows, columns, style, tuple(objects))


def _skewed(rng: np.random.Generator, choices: Sequence[T], count: int) -> list[T]:
    """Draw with frequencies that are themselves random."""
    shares = rng.dirichlet(np.full(len(choices), 0.8))
    return [choices[i] for i in rng.choice(len(choices), count, p=shares)]


def render(layout: Layout, bank: DigitBank, rng: np.random.Generator) -> Scene:
    """Draw a layout.

    Parameters
    ----------
    layout : Layout
        What to draw.
    bank : DigitBank
        Source of the digits, and of the fragments in the background clutter.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Scene
        The layout and its picture.
    """
    canvas = _ground(layout, rng)
    for _ in range(rng.integers(2, 8)):
        _add_clutter(canvas, bank, rng)
    for thing in layout.objects:
        mask = bank.draw(thing.digit, rng) * rng.uniform(0.8, 1.0)
        _blend(canvas, thing.top, thing.left, mask, np.array(COLORS[thing.color], dtype=np.float32))
    canvas += rng.normal(0.0, 0.03, canvas.shape)
    return Scene(layout, (np.clip(canvas, 0.0, 1.0) * 255).round().astype(np.uint8))


def _ground(layout: Layout, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a grey slope for sparse scenes, and coloured waves over the whole picture for dense ones."""
    height, width = layout.rows * CELL, layout.columns * CELL
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / CELL
    slope = (
        0.2
        + 0.05 * rng.uniform(-1, 1)
        + 0.03 * (rng.uniform(-1, 1) * (y - y.mean()) + rng.uniform(-1, 1) * (x - x.mean()))
    )
    canvas = np.repeat(slope[..., None], 3, axis=-1).astype(np.float32)
    if layout.style == "dense":
        for _ in range(3):
            frequency = rng.normal(0.0, 4.0, 2)
            wave = np.sin(frequency[0] * y + frequency[1] * x + rng.uniform(0, 2 * np.pi))
            canvas += 0.07 * wave[..., None] * rng.uniform(0, 1, 3)
    return canvas


def _add_clutter(canvas: NDArray[np.float32], bank: DigitBank, rng: np.random.Generator) -> None:
    """Add a fragment of a digit, or a textured blob, of any hue."""
    size = int(rng.integers(5, 14))
    if rng.random() < 0.5:  # noqa: PLR2004 - a coin
        size = min(size, 8)
        down, right = rng.integers(0, SIZE - size, 2)
        mask = bank.draw(int(rng.integers(10)), rng)[down : down + size, right : right + size]
    elif rng.random() < 0.5:  # noqa: PLR2004 - a coin
        mask = rng.random((size, size), dtype=np.float32)
    else:
        y, x = np.mgrid[0:size, 0:size]
        mask = 0.5 + 0.5 * np.sin(rng.normal() * y + rng.normal() * x)
    top, left = rng.integers(0, canvas.shape[0] - size), rng.integers(0, canvas.shape[1] - size)
    _blend(canvas, top, left, 0.7 * mask, rng.random(3, dtype=np.float32))


def _blend(
    canvas: NDArray[np.float32], top: int, left: int, mask: NDArray[np.float32], color: NDArray[np.float32]
) -> None:
    height, width = mask.shape
    area = canvas[top : top + height, left : left + width]
    area += mask[..., None] * (color - area)

"""Layouts and their pictures: what stands where, and whether it can be seen."""

import numpy as np
import pytest
from hypothesis import given

from iwp_miniature.digits import DigitBank, digit_bank
from iwp_miniature.scenes import COLORS, DigitObject, Layout, Style, draw_layout, render
from tests.miniature.answerer import cell, layouts

SHARES = {"sparse": (0.25, 0.5625), "dense": (0.75, 1.0)}
styles = pytest.mark.parametrize("style", ["sparse", "dense"])


@pytest.fixture(scope="module")
def one_scan_each() -> DigitBank:
    """Bank with one genuine scan a digit, so that a test knows which was drawn."""
    return DigitBank(tuple(masks[:1] for masks in digit_bank("validation").masks))


@given(layouts())
def test_digits_lie_inside_cells_of_their_own(layout: Layout) -> None:
    """Sixteen pixels from its corner a digit is still in the cell that its row and column name; none shares it."""
    for thing in layout.objects:
        assert cell(thing) == (thing.row + 1, thing.column + 1)
        assert (thing.top + 15) // 24 == thing.row < layout.rows
        assert (thing.left + 15) // 24 == thing.column < layout.columns
        assert 0 <= thing.digit <= 9
        assert thing.color in COLORS

    places = [(thing.row, thing.column) for thing in layout.objects]
    assert places == sorted(set(places))


@given(layouts())
def test_a_style_says_how_full_the_grid_is(layout: Layout) -> None:
    """The count is within half a digit of the style's shares of the cells."""
    least, most = (share * layout.rows * layout.columns for share in SHARES[layout.style])

    assert least - 0.5 <= len(layout.objects) <= most + 0.5


@pytest.mark.parametrize(("style", "counts"), [("sparse", range(4, 10)), ("dense", range(12, 17))])
def test_every_count_of_a_style_is_drawn(style: Style, counts: range) -> None:
    """4 to 9 digits in sparse scenes and 12 to 16 in dense ones, on the usual grid."""
    rng = np.random.default_rng(0)

    drawn = {len(draw_layout(rng, style=style).objects) for _ in range(120)}

    assert drawn == set(counts)


@pytest.mark.parametrize(("any_digit", "least", "most"), [(0.0, 0.0, 0.2), (1.0, 0.7, 1.4)])
def test_high_digits_are_rare_unless_any_may_stand(any_digit: float, least: float, most: float) -> None:
    """How many nines there are for each zero."""
    rng = np.random.default_rng(0)

    digits = [thing.digit for _ in range(600) for thing in draw_layout(rng, style="dense", any_digit=any_digit).objects]

    assert least < digits.count(9) / digits.count(0) < most


def test_every_digit_color_cell_and_corner_is_drawn() -> None:
    """Over many layouts nothing is left out: ten digits, seven colours, sixteen cells, nine by nine corners."""
    rng = np.random.default_rng(0)
    things = [thing for _ in range(200) for thing in draw_layout(rng, style="dense").objects]

    assert {thing.digit for thing in things} == set(range(10))
    assert {thing.color for thing in things} == set(COLORS)
    assert {(thing.row, thing.column) for thing in things} == {(row, column) for row in range(4) for column in range(4)}
    assert {(thing.top % 24, thing.left % 24) for thing in things} == {(y, x) for y in range(9) for x in range(9)}


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (5, 3), (4, 4)])
def test_a_picture_has_24_pixels_a_cell(rows: int, columns: int, one_scan_each: DigitBank) -> None:
    """Height follows the rows and width the columns; the picture for processors is the same pixels."""
    rng = np.random.default_rng(0)

    scene = render(draw_layout(rng, rows=rows, columns=columns), one_scan_each, rng)

    assert scene.pixels.shape == (24 * rows, 24 * columns, 3)
    assert scene.pixels.dtype == np.uint8
    assert scene.image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(scene.image), scene.pixels)


@styles
def test_inks_are_their_colours(style: Style, one_scan_each: DigitBank) -> None:
    """Where a digit is opaque the mean colour is near the one named, and nearer to it than to any other."""
    rng = np.random.default_rng(1)
    palette = np.array(list(COLORS.values()))
    for _ in range(40):
        layout = draw_layout(rng, style=style)
        pixels = render(layout, one_scan_each, rng).pixels / 255
        for thing in layout.objects:
            opaque = one_scan_each.masks[thing.digit][0] > 0.9
            mean = area_of(pixels, thing)[opaque].mean(axis=0)
            assert list(COLORS)[np.linalg.norm(palette - mean, axis=1).argmin()] == thing.color
            assert np.abs(mean - COLORS[thing.color]).max() < 0.25


@styles
def test_digits_can_be_told_by_their_shapes(style: Style, one_scan_each: DigitBank) -> None:
    """Over clutter, waves and noise the shape in a box is nearest to the digit's own scan, in 98 of 100 boxes."""
    rng = np.random.default_rng(2)
    shapes = np.stack([masks[0].ravel() for masks in one_scan_each.masks])
    told = []
    for _ in range(40):
        layout = draw_layout(rng, style=style)
        pixels = render(layout, one_scan_each, rng).pixels / 255
        for thing in layout.objects:
            likeness = [np.corrcoef(shape, brightness(pixels, thing))[0, 1] for shape in shapes]
            told.append(int(np.argmax(likeness)) == thing.digit)

    assert np.mean(told) >= 0.98


@styles
def test_pictures_are_never_the_same_ground(style: Style, one_scan_each: DigitBank) -> None:
    """Clutter and noise are drawn anew for each picture of one layout, and again the same from the same seed."""
    layout = draw_layout(np.random.default_rng(0), style=style)

    first, again, other = (render(layout, one_scan_each, np.random.default_rng(seed)).pixels for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def area_of(pixels: np.ndarray, thing: DigitObject) -> np.ndarray:
    """Pixels of a digit's box, shape (16, 16, 3)."""
    return pixels[thing.top : thing.top + 16, thing.left : thing.left + 16]


def brightness(pixels: np.ndarray, thing: DigitObject) -> np.ndarray:
    """How much of the ink is in each pixel of a digit's box, whatever the ground: shape (256,)."""
    ink = np.array(COLORS[thing.color])
    return np.asarray((area_of(pixels, thing) @ (ink - 0.2)).ravel())

"""A second reading of the task: answers found from a question's words and from where digits stand in the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from iwp_miniature.scenes import DigitObject, Layout, draw_layout

CELL = 24
COLORS = ("red", "green", "blue", "yellow", "cyan", "purple", "white")
MOST_COUNTED = 5


@dataclass(frozen=True)
class Reading:
    """The one right answer to a question, and the digits that have to be seen to know it."""

    answer: str
    about: frozenset[DigitObject]


def layouts() -> st.SearchStrategy[Layout]:
    """Generate layouts of every style and grid."""
    return st.builds(
        lambda seed, **options: draw_layout(np.random.default_rng(seed), **options),
        st.integers(0, 2**32 - 1),
        style=st.sampled_from(["sparse", "dense"]),
        rows=st.integers(3, 5),
        columns=st.integers(3, 5),
    )


def cell(thing: DigitObject) -> tuple[int, int]:
    """Row and column of a digit, from 1, by its pixels alone."""
    return thing.top // CELL + 1, thing.left // CELL + 1


def read(text: str, layout: Layout) -> Reading | None:
    """Answer a question from its words; None if none or several answers would be right."""
    things, words = layout.objects, text.split()
    match words:
        case ["digit", "at", row, column, "?"]:
            return _digit_in((int(row.removeprefix("row")), int(column.removeprefix("column"))), layout)
        case ["how", "many", digit, "?"]:
            alike = frozenset(thing for thing in things if thing.digit == int(digit))
            return Reading(str(len(alike)), alike) if len(alike) <= MOST_COUNTED else None
        case ["is", "there", "a", digit, "?"]:
            alike = frozenset(thing for thing in things if thing.digit == int(digit))
            return Reading("yes" if alike else "no", alike)
        case ["largest", "digit", "?"]:
            largest = sorted(things, key=lambda thing: thing.digit)[-1].digit
            return Reading(str(largest), frozenset(thing for thing in things if thing.digit == largest))
    wanted = first_look(text, layout)
    beginning = text.partition(" is ")[0].partition(" the ")[0].removesuffix(" of")
    return None if wanted is None else _ANSWERS[beginning](wanted, layout)


def first_look(text: str, layout: Layout) -> DigitObject | None:
    """Find the digit that a question names by its features; None if it names none or several."""
    match text.split():
        case ["color", "of", "the", digit, "?"]:
            return _only(thing for thing in layout.objects if thing.digit == int(digit))
        case ["which", "digit", "is", color, "?"]:
            return _only(thing for thing in layout.objects if thing.color == color)
        case ["digit", "below", "the", "largest", "?"]:
            highest = sorted(thing.digit for thing in layout.objects)[-1]
            return _only(thing for thing in layout.objects if thing.digit == highest)
        case [*_, "of", "the", color, digit, "?"]:
            return _only(thing for thing in layout.objects if (thing.color, thing.digit) == (color, int(digit)))
    return None


def texts(kind: str, layout: Layout) -> list[str]:
    """Every question of a kind that words allow, right answer or not."""
    names = [f"{color} {digit}" for color in COLORS for digit in range(10)]
    cells = [(row + 1, column + 1) for row in range(layout.rows) for column in range(layout.columns)]
    return {
        "position": [f"digit at row{row} column{column} ?" for row, column in cells],
        "color": [f"color of the {digit} ?" for digit in range(10)],
        "digit": [f"which digit is {color} ?" for color in COLORS],
        "count": [f"how many {digit} ?" for digit in range(10)],
        "largest": ["largest digit ?"],
        "presence": [f"is there a {digit} ?" for digit in range(10)],
        "place": [f"{axis} of the {name} ?" for axis in ("row", "column") for name in names],
        "right of": [f"digit right of the {name} ?" for name in names],
        "below largest": ["digit below the largest ?"],
    }[kind]


def _only(things: Iterator[DigitObject]) -> DigitObject | None:
    found = list(things)
    return found[0] if len(found) == 1 else None


def _digit_in(place: tuple[int, int], layout: Layout) -> Reading:
    thing = _only(thing for thing in layout.objects if cell(thing) == place)
    return Reading("none", frozenset()) if thing is None else Reading(str(thing.digit), frozenset([thing]))


def _color(thing: DigitObject, _: Layout) -> Reading:
    return Reading(thing.color, frozenset([thing]))


def _digit(thing: DigitObject, _: Layout) -> Reading:
    return Reading(str(thing.digit), frozenset([thing]))


def _row(thing: DigitObject, _: Layout) -> Reading:
    return Reading(f"row{cell(thing)[0]}", frozenset([thing]))


def _column(thing: DigitObject, _: Layout) -> Reading:
    return Reading(f"column{cell(thing)[1]}", frozenset([thing]))


def _right(thing: DigitObject, layout: Layout) -> Reading:
    row, column = cell(thing)
    beside = _digit_in((row, column + 1), layout)
    return Reading(beside.answer, beside.about | {thing})


def _below(thing: DigitObject, layout: Layout) -> Reading:
    row, column = cell(thing)
    beside = _digit_in((row + 1, column), layout)
    return Reading(beside.answer, beside.about | {thing})


_ANSWERS = {
    "color": _color,
    "which digit": _digit,
    "row": _row,
    "column": _column,
    "digit right": _right,
    "digit below": _below,
}

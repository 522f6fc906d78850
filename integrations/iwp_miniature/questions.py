"""Questions about a scene, each with its one-word answer and the digits that it is about."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from iwp_miniature.scenes import COLORS, DigitObject, Layout, Style, draw_layout
from iwp_miniature.vocabulary import COLUMNS, DIGITS, ROWS

__all__ = ["ANSWERS", "FIRST_LOOK", "KINDS", "TWO_LOOKS", "Question", "ask", "balanced_question", "questions_about"]

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    text : str
        Words of the vocabulary.
    answer : str
        One word.
    about : tuple of DigitObject
        The digits that have to be seen to know the answer; empty where what matters is that there is none.
    """

    kind: str
    text: str
    answer: str
    about: tuple[DigitObject, ...]


def _position(layout: Layout) -> list[Question]:
    found = {(thing.row, thing.column): thing for thing in layout.objects}
    questions = []
    for row in range(layout.rows):
        for column in range(layout.columns):
            text = f"digit at row{row + 1} column{column + 1} ?"
            questions.append(Question("position", text, *_named(found.get((row, column)))))
    return questions


def _color(layout: Layout) -> list[Question]:
    unique = _unique([thing.digit for thing in layout.objects])
    return [
        Question("color", f"color of the {thing.digit} ?", thing.color, (thing,))
        for thing in layout.objects
        if thing.digit in unique
    ]


def _digit(layout: Layout) -> list[Question]:
    unique = _unique([thing.color for thing in layout.objects])
    return [
        Question("digit", f"which digit is {thing.color} ?", str(thing.digit), (thing,))
        for thing in layout.objects
        if thing.color in unique
    ]


def _count(layout: Layout) -> list[Question]:
    questions = []
    for digit in range(10):
        alike = tuple(thing for thing in layout.objects if thing.digit == digit)
        if str(len(alike)) in ANSWERS["count"]:
            questions.append(Question("count", f"how many {digit} ?", str(len(alike)), alike))
    return questions


def _largest(layout: Layout) -> list[Question]:
    highest = max(thing.digit for thing in layout.objects)
    alike = tuple(thing for thing in layout.objects if thing.digit == highest)
    return [Question("largest", "largest digit ?", str(highest), alike)]


def _presence(layout: Layout) -> list[Question]:
    questions = []
    for digit in range(10):
        alike = tuple(thing for thing in layout.objects if thing.digit == digit)
        questions.append(Question("presence", f"is there a {digit} ?", "yes" if alike else "no", alike))
    return questions


def _place(layout: Layout) -> list[Question]:
    questions = []
    for thing in _recognisable(layout):
        name = f"{thing.color} {thing.digit}"
        questions.append(Question("place", f"row of the {name} ?", f"row{thing.row + 1}", (thing,)))
        questions.append(Question("place", f"column of the {name} ?", f"column{thing.column + 1}", (thing,)))
    return questions


def _right_of(layout: Layout) -> list[Question]:
    found = {(thing.row, thing.column): thing for thing in layout.objects}
    questions = []
    for thing in _recognisable(layout):
        answer, about = _named(found.get((thing.row, thing.column + 1)))
        text = f"digit right of the {thing.color} {thing.digit} ?"
        questions.append(Question("right of", text, answer, (thing, *about)))
    return questions


def _below_largest(layout: Layout) -> list[Question]:
    found = {(thing.row, thing.column): thing for thing in layout.objects}
    highest = max(thing.digit for thing in layout.objects)
    if sum(thing.digit == highest for thing in layout.objects) > 1:
        return []
    thing = next(thing for thing in layout.objects if thing.digit == highest)
    answer, about = _named(found.get((thing.row + 1, thing.column)))
    return [Question("below largest", "digit below the largest ?", answer, (thing, *about))]


def _named(thing: DigitObject | None) -> tuple[str, tuple[DigitObject, ...]]:
    return ("none", ()) if thing is None else (str(thing.digit), (thing,))


def _unique(features: Sequence[T]) -> set[T]:
    return {feature for feature, count in Counter(features).items() if count == 1}


def _recognisable(layout: Layout) -> list[DigitObject]:
    """Return the digits whose colour and digit together occur once."""
    counts = Counter((thing.color, thing.digit) for thing in layout.objects)
    return [thing for thing in layout.objects if counts[thing.color, thing.digit] == 1]


_ASK: dict[str, Callable[[Layout], list[Question]]] = {
    "position": _position,
    "color": _color,
    "digit": _digit,
    "count": _count,
    "largest": _largest,
    "presence": _presence,
    "place": _place,
    "right of": _right_of,
    "below largest": _below_largest,
}

KINDS = tuple(_ASK)
"""Kinds of questions."""

FIRST_LOOK = ("color", "digit", "place", "right of", "below largest")
"""Kinds that begin by finding one digit, the first of those that they are about."""

TWO_LOOKS = ("right of", "below largest")
"""Kinds that need a second look: where to look follows from what was seen first."""

ANSWERS: dict[str, tuple[str, ...]] = {
    "position": ("none", *DIGITS),
    "color": tuple(COLORS),
    "digit": DIGITS,
    "count": DIGITS[:6],
    "largest": DIGITS[2:],
    "presence": ("yes", "no"),
    "place": (*ROWS[:4], *COLUMNS[:4]),
    "right of": ("none", *DIGITS),
    "below largest": ("none", *DIGITS[:9]),
}
"""Answers that `balanced_question` draws from evenly."""


NONE_PASSED_OVER = 0.75
"""Share of the questions answered by "none" that `ask` draws again."""


def questions_about(layout: Layout, kind: str) -> list[Question]:
    """Return every question of a kind that has one right answer.

    Parameters
    ----------
    layout : Layout
    kind : str
        One of `KINDS`.

    Returns
    -------
    list of Question
        May be empty.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    if kind not in _ASK:
        msg = f"`kind` is {kind!r}, expected one of {', '.join(map(repr, KINDS))}"
        raise ValueError(msg)
    return _ASK[kind](layout)


def ask(layout: Layout, kind: str, rng: np.random.Generator) -> Question | None:
    """Draw a question of a kind: an answer that is possible, evenly, then a question that has it.

    Often there is nothing to the right, or below: most such questions are passed over, lest "none" be a good guess.
    """
    possible = questions_about(layout, kind)
    if not possible:
        return None
    answers = sorted({question.answer for question in possible})
    answer = answers[rng.integers(len(answers))]
    if answer == "none" and rng.random() < NONE_PASSED_OVER:
        return None
    suited = [question for question in possible if question.answer == answer]
    return suited[rng.integers(len(suited))]


def balanced_question(
    rng: np.random.Generator, kind: str, *, style: Style = "sparse", rows: int = 4, columns: int = 4
) -> tuple[Layout, Question]:
    """Draw a layout and a question about it, with equal probability for all `ANSWERS` of its kind.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    kind : str
        One of `KINDS`.
    style : {"sparse", "dense"}
        Style of the layout.
    rows, columns : int
        Cells of the grid.

    Returns
    -------
    Layout, Question
        Who knows only the kind is right at most once in ``len(ANSWERS[kind])`` questions.
    """
    absent = {*ROWS[rows:], *COLUMNS[columns:]}
    allowed = [answer for answer in ANSWERS[kind] if answer not in absent]
    wanted = allowed[rng.integers(len(allowed))]
    while True:
        layout = draw_layout(rng, style=style, rows=rows, columns=columns)
        suited = [question for question in questions_about(layout, kind) if question.answer == wanted]
        if suited:
            return layout, suited[rng.integers(len(suited))]

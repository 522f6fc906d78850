"""Questions and their answers, against a second reading of their words."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_miniature.questions import ANSWERS, KINDS, TWO_LOOKS, ask, balanced_question, questions_about
from iwp_miniature.scenes import DigitObject, Layout, draw_layout
from tests.miniature.answerer import layouts, read, texts

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@given(layout=layouts())
def test_answers_are_those_of_a_second_reading(kind: str, layout: Layout) -> None:
    """Every question that has one right answer is there once, with that answer and the digits that give it."""
    readings = {text: reading for text in texts(kind, layout) if (reading := read(text, layout)) is not None}

    questions = questions_about(layout, kind)

    assert sorted(question.text for question in questions) == sorted(readings)
    for question in questions:
        assert question.kind == kind
        assert question.answer == readings[question.text].answer
        assert frozenset(question.about) == readings[question.text].about
        assert len(question.about) == len(readings[question.text].about)


def test_second_looks_need_the_digit_beside_the_one_that_is_named() -> None:
    """A scene small enough to read: a red 5 with a 3 on its right and a 2 below."""
    things = (
        DigitObject(5, "red", 0, 0, 2, 3),
        DigitObject(3, "blue", 0, 1, 4, 26),
        DigitObject(2, "blue", 1, 0, 30, 1),
    )
    layout = Layout(2, 2, "sparse", things)

    right = {question.text: question for question in questions_about(layout, "right of")}
    (below,) = questions_about(layout, "below largest")

    assert right["digit right of the red 5 ?"].answer == "3"
    assert right["digit right of the red 5 ?"].about == things[:2]
    assert right["digit right of the blue 3 ?"].answer == "none"
    assert right["digit right of the blue 3 ?"].about == (things[1],)
    assert (below.answer, below.about) == ("2", (things[0], things[2]))
    assert set(TWO_LOOKS) == {"right of", "below largest"}


@kinds
@given(layout=layouts(), seed=st.integers(0, 2**32 - 1))
def test_ask_draws_a_right_question_or_says_that_there_is_none(kind: str, layout: Layout, seed: int) -> None:
    """What is drawn is one of the questions about the layout; nothing may be drawn where "none" would be an answer."""
    possible = questions_about(layout, kind)

    drawn = ask(layout, kind, np.random.default_rng(seed))

    if drawn is None:
        assert not possible or "none" in {question.answer for question in possible}
    else:
        assert drawn in possible


def test_ask_draws_answers_evenly_however_many_questions_have_them() -> None:
    """Three digits in sixteen cells: each comes one time in four, "none" a quarter as often and nothing else so."""
    layout = Layout(4, 4, "sparse", tuple(DigitObject(digit, "red", digit, digit, 0, 0) for digit in range(3)))
    rng = np.random.default_rng(0)

    drawn = Counter(getattr(ask(layout, "position", rng), "answer", None) for _ in range(400))

    expected = {"0": 0.25, "1": 0.25, "2": 0.25, "none": 0.0625, None: 0.1875}
    assert set(drawn) == set(expected)
    assert all(abs(drawn[word] - 400 * p) < 5 * np.sqrt(400 * p * (1 - p)) for word, p in expected.items())


@kinds
@pytest.mark.parametrize("options", [{"style": "dense"}, {"style": "sparse", "rows": 3, "columns": 5}], ids=str)
def test_balanced_questions_are_right(kind: str, options: dict[str, Any]) -> None:
    """Layout and question belong together, and are of the kind, style and grid asked for."""
    layout, question = balanced_question(np.random.default_rng(5), kind, **options)

    reading = read(question.text, layout)
    assert reading is not None
    assert question.text in texts(kind, layout)
    assert question.answer == reading.answer
    assert {"style": layout.style, "rows": layout.rows, "columns": layout.columns} == {
        "rows": 4,
        "columns": 4,
        **options,
    }


def test_balanced_answers_leave_nothing_to_guess() -> None:
    """Every answer of a kind is equally likely, within five sigma, so that guessing by kind is right in under 22 %."""
    rng = np.random.default_rng(0)
    guesses = []
    for kind in KINDS:
        drawn = Counter(balanced_question(rng, kind, style="dense")[1].answer for _ in range(15 * len(ANSWERS[kind])))
        sigma = np.sqrt(15 * (1 - 1 / len(ANSWERS[kind])))
        assert set(drawn) <= set(ANSWERS[kind])
        assert all(abs(drawn[answer] - 15) < min(15, 5 * sigma) for answer in ANSWERS[kind]), (kind, drawn)
        guesses.append(1 / len(drawn))

    assert np.mean(guesses) <= 0.22


def test_balanced_places_are_those_of_the_grid() -> None:
    """Where there are three rows and four columns nobody is asked for a fourth row."""
    rng = np.random.default_rng(0)

    drawn = Counter(balanced_question(rng, "place", rows=3, columns=4)[1].answer for _ in range(210))

    assert set(drawn) == {"row1", "row2", "row3", "column1", "column2", "column3", "column4"}
    assert all(abs(count - 30) < 5 * np.sqrt(30 * 6 / 7) for count in drawn.values())


def test_an_unknown_kind_is_named_with_the_known() -> None:
    """`kind`, what it was, what is allowed."""
    with pytest.raises(ValueError, match=r"`kind` is 'colour', expected one of 'position', 'color'"):
        questions_about(draw_layout(np.random.default_rng(0)), "colour")

"""Sets of examples to measure on: balanced, right, from one split, in batches of one size."""

from collections import Counter

import numpy as np
import pytest

from iwp_miniature import Example, draw_examples, in_batches
from iwp_miniature import examples as module
from iwp_miniature.architectures import Architecture
from iwp_miniature.digits import DigitBank, Split, digit_bank
from iwp_miniature.questions import KINDS
from tests.miniature.answerer import read


@pytest.fixture
def drawn(kind: Architecture, monkeypatch: pytest.MonkeyPatch) -> list[Example]:
    """Two questions of each kind and style; the slowest kind is drawn like the others here."""
    return draw_examples(kind, split="validation", per_kind=2, seed=3)


def test_kinds_and_styles_are_even(drawn: list[Example]) -> None:
    """As many of each kind about sparse scenes as about dense ones."""
    counts = Counter((example.question.kind, example.scene.layout.style) for example in drawn)

    assert counts == {(kind, style): 2 for kind in KINDS for style in ("sparse", "dense")}


def test_questions_are_about_their_own_scenes(drawn: list[Example]) -> None:
    """A second reading of the question and the scene's layout agrees with the answer; the picture has its size."""
    for example in drawn:
        layout = example.scene.layout
        reading = read(example.question.text, layout)
        assert reading is not None
        assert reading.answer == example.question.answer
        assert example.scene.pixels.shape == (24 * layout.rows, 24 * layout.columns, 3)


def test_a_seed_draws_the_same_examples_again(kind: Architecture, drawn: list[Example]) -> None:
    """Pictures and questions, and others from another seed."""
    again, other = (draw_examples(kind, split="validation", per_kind=2, seed=seed) for seed in (3, 4))

    assert [example.question for example in again] == [example.question for example in drawn]
    assert all(np.array_equal(a.scene.pixels, b.scene.pixels) for a, b in zip(again, drawn, strict=True))
    assert [example.question for example in other] != [example.question for example in drawn]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_pictures_are_made_of_the_splits_digits(
    kind: Architecture, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other bank is ever drawn from."""
    banks: list[DigitBank] = []
    genuine = module.render
    monkeypatch.setattr(module, "KINDS", ("presence",))
    monkeypatch.setattr(module, "render", lambda *given: (banks.append(given[1]), genuine(*given))[1])

    draw_examples(kind, split=split, per_kind=1)

    assert len(banks) == 2
    assert all(bank is digit_bank(split) for bank in banks)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_batches_hold_pictures_of_one_size(drawn: list[Example], size: int) -> None:
    """In the order given, none left out, at most `size`, and no fuller batch was possible."""
    batches = list(in_batches(drawn, size))

    assert [example for batch in batches for example in batch] == drawn
    assert all(len(batch) <= size for batch in batches)
    shapes = [{example.scene.pixels.shape for example in batch} for batch in batches]
    assert all(len(shape) == 1 for shape in shapes)
    sizes = Counter(example.scene.pixels.shape for example in drawn)
    assert len(batches) == sum(-(-count // size) for count in sizes.values())

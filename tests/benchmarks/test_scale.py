"""The page on scale is computed from result files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def test_every_figure_of_the_tables_is_computed_from_the_result_files() -> None:
    """Whoever measures anew has to write the page anew."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()

    assert [line for line in import_module("scale").tables() if line not in lines] == []


def test_what_the_text_says_in_numbers_is_computed_from_the_result_files() -> None:
    """Whatever the line breaks."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())

    assert [words for words in import_module("scale").said() if words not in text] == []


def test_an_image_takes_its_stages_times_added_up() -> None:
    """By hand: a batch of four takes a second to its first token, and gets 64 tokens a second in all."""
    run = {"prefill seconds": {"median": 1.0}, "decoded tokens a second": 64.0, "selection seconds": {"median": 0.2}}

    scale = import_module("scale")
    times = scale.of_image({"batch": 4, "tower seconds a picture": 0.25, "22.2%": run}, "22.2%")

    assert times == pytest.approx({"tower": 0.25, "prompt": 0.25, "choosing": 0.05, "token": 1 / 64})
    assert scale.answered(times, 33) == pytest.approx(1.0)

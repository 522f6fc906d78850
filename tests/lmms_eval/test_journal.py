"""Answers on disk: what a killed run has answered is not asked again, and nothing foreign is taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iwp_lmms_eval.answering import Answer
from iwp_lmms_eval.figures import Figures
from iwp_lmms_eval.journal import Journal

SETTINGS = {"pretrained": "folder", "pruning": {"budget": "0.5"}}
ANSWER = Answer(text="ein\nWort ü", prompt_tokens=7, new_tokens=3)
FIGURES = Figures(samples=1, visual_tokens=8, kept_tokens=2, visual_by_layer=(8, 2), seconds=0.5, peak_bytes=10)


def test_a_journal_holds_what_was_added(tmp_path: Path) -> None:
    """Answers and figures come back in the next run, whatever characters they have."""
    Journal(tmp_path / "new" / "answers.jsonl", SETTINGS).add(["a"], [ANSWER], FIGURES)

    again = Journal(tmp_path / "new" / "answers.jsonl", SETTINGS)

    assert again.answers == {"a": ANSWER}
    assert again.figures == FIGURES


def test_a_line_that_was_being_written_is_dropped(tmp_path: Path) -> None:
    """A run that is killed in the middle of a line loses that batch, and can still add the next."""
    path = tmp_path / "answers.jsonl"
    journal = Journal(path, SETTINGS)
    journal.add(["a"], [ANSWER], FIGURES)
    whole = path.read_bytes()
    journal.add(["b"], [ANSWER], FIGURES)
    path.write_bytes(path.read_bytes()[:-5])

    again = Journal(path, SETTINGS)

    assert list(again.answers) == ["a"]
    assert path.read_bytes() == whole
    again.add(["c"], [ANSWER], FIGURES)
    assert list(Journal(path, SETTINGS).answers) == ["a", "c"]


def test_a_run_that_was_killed_at_once_begins_anew(tmp_path: Path) -> None:
    """Half a first line is no journal of other settings."""
    path = tmp_path / "answers.jsonl"
    path.write_text('{"settin')

    assert Journal(path, SETTINGS).answers == {}
    assert json.loads(path.read_text()) == {"settings": SETTINGS}


def test_answers_of_other_settings_are_refused(tmp_path: Path) -> None:
    """Scores of two budgets are never mixed."""
    Journal(tmp_path / "answers.jsonl", SETTINGS)

    with pytest.raises(ValueError, match=r"`journal` is .* answers of other settings"):
        Journal(tmp_path / "answers.jsonl", {**SETTINGS, "pruning": {"budget": "0.2"}})


def test_what_differs_in_the_settings_is_named(tmp_path: Path) -> None:
    """Entry by entry, such as the version of one package, and what is the same is left out."""
    versions = {"torch": "2.13.0", "transformers": "5.23.0"}
    Journal(tmp_path / "answers.jsonl", {**SETTINGS, "versions": versions})

    with pytest.raises(ValueError, match=r"settings \(versions transformers was '5\.23\.0' and is '5\.24\.0'\)"):
        Journal(tmp_path / "answers.jsonl", {**SETTINGS, "versions": {**versions, "transformers": "5.24.0"}})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000 + "\n", id="nested too deep"),
        "no journal\n",
        "[1, 2]\n",
        '{"questions": 3}\n',
        '{"questions": 3}\n{"ends": "ab',
        "half a line",
    ],
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    """A path that was mistaken is an error, and its file stays as it was."""
    path = tmp_path / "data.jsonl"
    path.write_text(text)

    with pytest.raises(ValueError, match="`journal` is"):
        Journal(path, SETTINGS)
    assert path.read_text() == text


def test_figures_add_up() -> None:
    """Tokens and seconds are summed, layer by layer; of memory the most counts."""
    other = Figures(samples=2, visual_tokens=4, kept_tokens=1, visual_by_layer=(4, 1), seconds=1.0, peak_bytes=30)

    total = FIGURES + other

    assert (total.samples, total.visual_tokens, total.kept_tokens) == (3, 12, 3)
    assert (total.visual_by_layer, total.seconds, total.peak_bytes) == ((12, 3), 1.5, 30)


def test_figures_of_text_alone_leave_the_layers_as_they_are() -> None:
    """A batch without pictures has no layers to add."""
    assert (FIGURES + Figures(samples=1)).visual_by_layer == (8, 2)
    assert (Figures(samples=1) + FIGURES).visual_by_layer == (8, 2)


def test_means_name_layers_that_see_equally_many_tokens_once() -> None:
    """The result table has a line for each stage, not for each layer."""
    means = Figures(samples=2, visual_tokens=20, kept_tokens=4, visual_by_layer=(20, 20, 10, 4)).means()

    layers = {name: value for name, value in means.items() if "layers" in name}
    assert layers == {
        "visual_tokens_in_layers_0_to_1": 10.0,
        "visual_tokens_in_layers_2_to_2": 5.0,
        "visual_tokens_in_layers_3_to_3": 2.0,
    }

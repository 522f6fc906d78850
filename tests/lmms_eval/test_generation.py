"""What a task states about its answers: their length, their end, and how they are chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from iwp_lmms_eval.conversations import conversation_of
from iwp_lmms_eval.generation import StopAtWords, cut_at, options_of

WORDS = ["", "A", " cat", ".", " Q", ":", "Q", " dog"]


class Speller:
    """Stand-in for a tokenizer: a word an id."""

    def batch_decode(self, rows: torch.Tensor, **_: Any) -> list[str]:
        """Return the words of each row."""
        return ["".join(WORDS[index] for index in row) for row in rows.tolist()]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, {"do_sample": False, "temperature": None, "max_new_tokens": 9}),
        ({"temperature": 0, "top_p": 1.0}, {"do_sample": False, "temperature": None, "top_p": None}),
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7}),
        ({"temperature": 0.7, "do_sample": False}, {"do_sample": False, "temperature": None}),
        ({"temperature": 0, "do_sample": True}, {"do_sample": False, "temperature": None}),
        ({"do_sample": True}, {"do_sample": True}),
        ({"num_beams": 3, "max_new_tokens": 4}, {"num_beams": 3, "max_new_tokens": 4}),
    ],
)
def test_options_are_those_of_the_task(stated: dict[str, Any], expected: dict[str, Any]) -> None:
    """A temperature of 0 is greedy, and greedy has no sampling settings that would only draw warnings."""
    arguments = options_of(stated, max_new_tokens=9).arguments

    assert {name: arguments[name] for name in expected} == expected


def test_what_only_other_models_read_is_left_out() -> None:
    """`until` is no argument of `generate`, and neither is what LLaVA's own model reads."""
    options = options_of({"until": ["\n\n", ""], "image_aspect_ratio": "original"}, max_new_tokens=9)

    assert options.until == ("\n\n",)
    assert not {"until", "image_aspect_ratio"} & set(options.arguments)


def test_an_unknown_option_reaches_generate() -> None:
    """Nothing that a task asks for is dropped in silence: `generate` refuses what it does not know."""
    assert "thinking" in options_of({"thinking": True}, max_new_tokens=9).arguments


def test_an_answer_ends_before_the_first_word_that_ends_it() -> None:
    """Of several words the one that comes first counts, not the one that is named first."""
    assert cut_at("one. two; three", [";", "."]) == "one"
    assert cut_at("one", [";"]) == "one"


def test_generation_stops_when_a_word_is_complete() -> None:
    """A word may be spread over tokens; each sample of a batch ends for itself."""
    prompt = [1, 2]
    rows = torch.tensor([[*prompt, 2, 4, 5], [*prompt, 2, 4, 3]])

    ended = StopAtWords(Speller(), ["Q:"], len(prompt))(rows, None)

    assert ended.tolist() == [True, False]


def test_the_prompt_does_not_end_an_answer() -> None:
    """A word that the question ends with, alone or with the answer's beginning, is none of the answer."""
    stop = StopAtWords(Speller(), ["Q:"], 2)

    assert stop(torch.tensor([[6, 5, 7]]), None).tolist() == [False]
    assert stop(torch.tensor([[1, 6, 5]]), None).tolist() == [False]


def test_a_word_is_found_however_long_the_answer_is() -> None:
    """Only the end of an answer is read in each step."""
    rows = torch.tensor([[1, 1, *[2] * 200, 6, 5]])

    assert StopAtWords(Speller(), ["Q:"], 2)(rows, None).tolist() == [True]


def test_a_message_with_sound_is_refused() -> None:
    """Nothing that a task shows is left out in silence."""
    with pytest.raises(NotImplementedError, match="a message holds 'audio'"):
        conversation_of([{"role": "user", "content": [{"type": "audio", "url": "sound.wav"}]}])

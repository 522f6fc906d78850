"""Options of `generate` as a task states them, and stopping at the words that it names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

__all__ = ["Options", "StopAtWords", "cut_at", "options_of"]

# Tokens read beyond the length of a word: a character can be several tokens.
MARGIN = 8
# What LLaVA's own model of lmms-eval reads; processors of Transformers decide by themselves.
IGNORED = ("image_aspect_ratio",)
GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


@dataclass(frozen=True)
class Options:
    """How to generate.

    Attributes
    ----------
    arguments : mapping
        Of `generate`.
    until : tuple of str
        An answer ends before the first of these.
    """

    arguments: Mapping[str, Any]
    until: tuple[str, ...]


def options_of(stated: Mapping[str, Any], *, max_new_tokens: int) -> Options:
    """Return the options that a task states.

    Parameters
    ----------
    stated : mapping
        Its ``generation_kwargs``.
    max_new_tokens : int
        Longest answer where it states none.

    Notes
    -----
    As elsewhere in lmms-eval, a temperature of 0 means greedy, and one above 0 sampling unless `do_sample` forbids it.

    Examples
    --------
    >>> options_of({"until": "ASSISTANT:", "temperature": 0}, max_new_tokens=16).until
    ('ASSISTANT:',)
    """
    arguments = {name: value for name, value in stated.items() if name not in {*IGNORED, "until"}}
    until = stated.get("until") or ()
    words = (until,) if isinstance(until, str) else tuple(until)
    temperature = arguments.get("temperature")
    samples = arguments.get("do_sample", bool(temperature))
    if not samples or temperature == 0:
        arguments |= GREEDY
    else:
        arguments["do_sample"] = True
    arguments.setdefault("max_new_tokens", max_new_tokens)
    return Options(arguments, tuple(word for word in words if word))


def cut_at(text: str, words: Sequence[str]) -> str:
    """Return a text up to the first place where one of some words stands.

    Examples
    --------
    >>> cut_at("A cat. Q: What", ["Q:", "."])
    'A cat'
    """
    return text[: min((place for place in map(text.find, words) if place >= 0), default=len(text))]


class StopAtWords(StoppingCriteria):
    """Ends each sample of a batch once its answer holds one of some words; the prompt is not looked at.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizer
    words : sequence of str
        None of them empty.
    prompt : int
        Columns of the prompts, padding counted.
    """

    def __init__(self, tokenizer: Any, words: Sequence[str], prompt: int) -> None:
        self._tokenizer, self._words, self._prompt = tokenizer, words, prompt
        self._reach = max(map(len, words)) + MARGIN

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:  # noqa: ARG002 - called by name
        """Return which samples have ended, shape (B,), bool."""
        # A word is found in the step that completes it, so its end alone has to be read.
        tails = input_ids[:, max(self._prompt, input_ids.shape[1] - self._reach) :]
        texts = self._tokenizer.batch_decode(tails, skip_special_tokens=True)
        ended = [any(word in text for word in self._words) for text in texts]
        return torch.tensor(ended, device=input_ids.device)

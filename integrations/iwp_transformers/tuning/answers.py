"""The unpruned model's answer, and what a model finds likely at each of its positions."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from iwp_transformers.callers import followed_by_answer
from iwp_transformers.timed_generation import GREEDY

__all__ = ["Answer", "answer_of", "forced_log_probs", "stepwise_log_probs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What a model answered.

    Attributes
    ----------
    ids : torch.Tensor
        Shape (n,), int64: the new tokens, with the one that ends the answer.
    log_probs : torch.Tensor
        Shape (n, vocabulary), float32: logarithm of how likely each token is at each position, before any processing.
    """

    ids: Tensor
    log_probs: Tensor


class _Dictation(LogitsProcessor):
    """Lets nothing be said but a given answer."""

    def __init__(self, ids: Tensor, prompt: int) -> None:
        self._ids, self._prompt = ids, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = self._ids[input_ids.shape[1] - self._prompt]
        forced = torch.full_like(scores, -torch.inf)
        forced[:, said] = 0
        return forced


def answer_of(model: Any, inputs: Mapping[str, Any], max_new_tokens: int) -> Answer:
    """Let a model answer greedily, otherwise as its generation configuration says.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    inputs : mapping
        Of one sample.
    max_new_tokens : int
        Longest answer.
    """
    return _generated(model, inputs, max_new_tokens=max_new_tokens)


def stepwise_log_probs(model: Any, inputs: Mapping[str, Any], ids: Tensor) -> Tensor:
    """Return what a model finds likely while it is made to say an answer, token by token; shape (n, vocabulary)."""
    dictation = _Dictation(ids, inputs["input_ids"].shape[1])
    return _generated(model, inputs, max_new_tokens=len(ids), logits_processor=[dictation]).log_probs


def _generated(model: Any, inputs: Mapping[str, Any], **options: Any) -> Answer:
    told = {"return_dict_in_generate": True, "output_logits": True}
    said = model.generate(**inputs, **GREEDY, num_beams=1, **told, **options)
    logits = torch.cat(said.logits)
    return Answer(ids=said.sequences[0, inputs["input_ids"].shape[1] :], log_probs=logits.float().log_softmax(-1))


def forced_log_probs(model: Any, inputs: Mapping[str, Any], ids: Tensor) -> Tensor:
    """Return what a model finds likely at each position of an answer, from one forward of prompt and answer.

    The answer counts as drafted, so that a pruning rule reads no question from it.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    inputs : mapping
        Of one sample: each tensor shaped like `input_ids` has a value a token, and goes on with that of text.
    ids : torch.Tensor
        Shape (n,): the answer.

    Returns
    -------
    torch.Tensor
        Shape (n, vocabulary), float32.
    """
    length, given = inputs["input_ids"].shape, ids[:-1]
    longer: dict[str, Any] = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == length:
            behind = given if name == "input_ids" else given.new_full(given.shape, int(name == "attention_mask"))
            longer[name] = torch.cat((value, behind[None].to(value)), dim=1)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        longer["logits_to_keep"] = len(ids)
    with torch.no_grad(), followed_by_answer(len(given)):
        logits: Tensor = model(**longer, use_cache=False).logits
    return logits[0, -len(ids) :].float().log_softmax(-1)

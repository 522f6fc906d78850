"""One answer on the clock, after a warm-up."""

from collections.abc import Mapping
from typing import Any

from iwp_transformers.timed_generation import TimedGeneration, timed_generation

__all__ = ["timed_answer"]


def timed_answer(model: Any, inputs: Mapping[str, Any], max_new_tokens: int) -> TimedGeneration:
    """Answer greedily, after a warm-up of one token that is not timed.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model that generates.
    inputs : mapping
        Its inputs, one sample.
    max_new_tokens : int
        Longest answer.

    Returns
    -------
    TimedGeneration
    """
    timed_generation(model, inputs, max_new_tokens=1)
    return timed_generation(model, inputs, max_new_tokens=max_new_tokens)

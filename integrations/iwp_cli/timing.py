"""One answer, with the time and the memory that it took."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer


@dataclass(frozen=True, kw_only=True)
class TimedAnswer:
    """What one call of `generate` said, and what it took.

    Attributes
    ----------
    ids : torch.Tensor
        Token ids of the answer alone.
    prefill_seconds : float
        From the call to the first token: pictures encoded, prompt read.
    decode_seconds : float
        From the first token to the last.
    peak_bytes : int or None
        Most memory that PyTorch held on a CUDA device, weights included; None elsewhere.
    """

    ids: torch.Tensor
    prefill_seconds: float
    decode_seconds: float
    peak_bytes: int | None

    @property
    def tokens_per_second(self) -> float | None:
        """Rate of all tokens but the first, None if there is only that one."""
        steps = len(self.ids) - 1
        return steps / self.decode_seconds if steps else None


class TokenClock(BaseStreamer):
    """Streamer that notes when the prompt and when each token arrives.

    `generate` hands tokens over as host tensors, so that on a GPU a moment is that of the finished work.
    """

    def __init__(self) -> None:
        self.moments: list[float] = []

    def put(self, value: torch.Tensor) -> None:  # noqa: ARG002 the signature is the library's
        """Note the moment; the prompt comes first."""
        self.moments.append(perf_counter())

    def end(self) -> None:
        """Do nothing: the last token has come."""


def timed_answer(model: Any, inputs: Mapping[str, Any], max_new_tokens: int) -> TimedAnswer:
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
    TimedAnswer
    """
    # Sampling settings of a checkpoint are taken back, as they would only draw warnings here.
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    model.generate(**inputs, **greedy, max_new_tokens=1)
    on_cuda = model.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(model.device)
        torch.cuda.reset_peak_memory_stats(model.device)
    clock = TokenClock()
    began = perf_counter()
    ids = model.generate(**inputs, **greedy, max_new_tokens=max_new_tokens, streamer=clock)
    _, first, *_ = clock.moments
    return TimedAnswer(
        ids=ids[0, inputs["input_ids"].shape[1] :],
        prefill_seconds=first - began,
        decode_seconds=clock.moments[-1] - first,
        peak_bytes=torch.cuda.max_memory_allocated(model.device) if on_cuda else None,
    )

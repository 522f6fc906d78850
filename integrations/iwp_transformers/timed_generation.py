"""One call of `generate`, with the moment at which each token was there."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from iwp_transformers.memory import PeakMemory

__all__ = ["GREEDY", "TimedGeneration", "timed_generation"]

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
"""Options of `generate`: sampling settings of a checkpoint are taken back, as they would only draw warnings."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedGeneration:
    """What one call of `generate` said, and what it took.

    Attributes
    ----------
    ids : torch.Tensor
        Shape (B, n): ids of the new tokens alone.
    first_token_seconds : float
        From the call to the first token: pictures encoded, prompt read.
    decode_seconds : float
        From the first token to the last.
    peak_bytes : int or None
        Most memory held above what was held before the call, see `PeakMemory`; None where it is not measured.
    """

    ids: Tensor
    first_token_seconds: float
    decode_seconds: float
    peak_bytes: int | None

    @property
    def tokens_per_second(self) -> float | None:
        """Rate of all tokens but the first, for each sample; None if there is only that one."""
        steps = self.ids.shape[1] - 1
        return steps / self.decode_seconds if steps else None


class TokenClock(StoppingCriteria):
    """Never stops a generation; notes when each of its tokens was there, for a batch too."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:  # noqa: ARG002 - called by name
        """Note the moment at which the device has done its work."""
        if input_ids.is_cuda:
            torch.cuda.synchronize(input_ids.device)
        self.moments.append(perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def timed_generation(model: Any, inputs: Mapping[str, Any], *, memory: bool = True, **options: Any) -> TimedGeneration:
    """Generate greedily on the clock.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model that generates.
    inputs : mapping
        Its inputs.
    memory : bool, default True
        Whether the peak of memory is measured. On a CPU, freed memory is handed back for it, which lengthens the time.
    **options
        Further arguments of `generate`, such as `max_new_tokens`.

    Returns
    -------
    TimedGeneration
    """
    clock = TokenClock()
    with PeakMemory(model.device) if memory else nullcontext() as peak:
        began = perf_counter()
        ids = model.generate(**inputs, **GREEDY, **options, stopping_criteria=[clock])
    return TimedGeneration(
        ids=ids[:, inputs["input_ids"].shape[1] :],
        first_token_seconds=clock.moments[0] - began,
        decode_seconds=clock.moments[-1] - clock.moments[0],
        peak_bytes=None if peak is None else peak.bytes,
    )

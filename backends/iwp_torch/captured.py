"""Which selections a CUDA graph can hold: those that the host follows without a look at a number."""

from typing import Any

import torch

from iwp_core import PCMMR, Strategy, Tolerance, TopK
from iwp_core.above_chance import AboveChance
from iwp_core.budget import tokens_to_keep
from iwp_core.kernels import Rule, Samples
from iwp_core.pooling import of_single_queries
from iwp_core.strategies import MMR
from iwp_torch import fused

__all__ = ["is_captured", "why_not_captured"]

COMPARING = (PCMMR, MMR, AboveChance)
"""Strategies of the library that look for identical tokens on the host where no kernel serves them."""


def is_captured(array: Any) -> bool:
    """Return whether what is done with a tensor now is recorded in a CUDA graph, to run later."""
    return bool(array.is_cuda) and torch.cuda.is_current_stream_capturing()


def why_not_captured(samples: Samples, budget: float | Tolerance, rule: Rule) -> str | None:
    """Say why a selection cannot be recorded, and what can be; None if it can, as far as the library can tell."""
    if isinstance(budget, Tolerance) or tokens_to_keep(budget, samples.count) == samples.count:
        return None  # the first is refused before, and to keep all tokens nothing is read
    if samples.mask is not None:
        return "`mask` is given, expected None: the host counts the real tokens of each sample"
    heads = of_single_queries(rule.heads)
    arrays = samples.magnitude_keys, samples.values, samples.queries
    if heads not in fused.POOLINGS:
        expected = ", ".join(map(repr, (*fused.POOLINGS, "softmax_mean_per_query")))
        return f"`heads` is {rule.heads!r}, expected one of {expected}: no kernel pools otherwise"
    if not fused.supports_log_magnitude(*arrays, heads=heads, context=samples.context):
        return f"`keys` and `values` are {_kinds(samples)}, for which there is no Triton kernel"
    return _why_not_chosen(rule.strategy, samples, rule)


def _why_not_chosen(strategy: Strategy, samples: Samples, rule: Rule) -> str | None:
    if type(strategy) not in COMPARING:
        return None  # top-K compares nothing; what a user's own strategy does is the user's to know
    if type(strategy) is not PCMMR:
        return f"`strategy` is {strategy!r}, expected {PCMMR()!r} or {TopK()!r}: others compare numbers on the host"
    if not fused.serves_factors(rule.factors(samples)):
        return f"tokens compared by `similarity` {rule.similarity!r} are {_kinds(samples)}, without a Triton kernel"
    return None


def _kinds(samples: Samples) -> str:
    kinds = {f"{str(x.dtype).removeprefix('torch.')} of width {x.shape[-1]}" for x in (samples.keys, samples.values)}
    return " and ".join(sorted(kinds))

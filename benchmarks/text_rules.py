"""Rules that choose among the tokens of a text, by what a decoder's layers read."""

from collections.abc import Callable
from typing import Any

import torch
from _harness import PAPER, PRESET
from pooling_rules import by_deviation, from_outside, log_shares, maximum, pooled_as_outputs, squared_by_output
from text_decoder import Inputs, LayerInput, Rule
from torch import Tensor

from iwp_core import TopK, select_tokens
from iwp_core.comparison import Duplication
from iwp_core.methods import divprune
from iwp_core.pooling import log_min_max
from iwp_core.presets import ABOVE_CHANCE, PER_QUERY
from iwp_core.strategies import Strategy

__all__ = ["MEAN_ATTENTION", "RULES"]

MEAN_ATTENTION = "mean attention"
States = Callable[[LayerInput], Tensor]
"""What a rule compares as hidden states, shape (N, any width)."""


def paper(inputs: Inputs, count: int) -> Tensor:
    """Keep what the paper's default keeps: a mean query, and keys before the rotary embedding for the magnitude."""
    here = inputs[-1]
    return chosen(here.rotated_keys, here.values, here.queries, count, magnitude_keys=here.keys)


def iwp(layers: int = 1, states: States = lambda here: here.hidden, **options: Any) -> Rule:
    """Return a rule of this library whose scores the heads of so many layers give together."""

    def choose(inputs: Inputs, count: int) -> Tensor:
        scoring = inputs[-layers:]
        keys, values, queries, context = (
            torch.cat([getattr(each, name) for each in scoring])
            for name in ("rotated_keys", "values", "rotated_queries", "context")
        )
        heads = options.get("heads", "mean")
        reads = {"context": context} if heads == "max" or not isinstance(heads, str) else {}
        return chosen(keys, values, queries, count, hidden=states(inputs[-1]), **reads, **options)

    return choose


def chosen(*arrays: Any, **options: Any) -> Tensor:
    """Choose, without checks."""
    kept: Tensor = select_tokens(*arrays, validate=False, **options)
    return kept


def by_outputs(
    layers: int, strategy: Strategy, similarity: str = "dual", states: States = lambda here: here.hidden
) -> Rule:
    """Return a rule that pools as the outputs of attention do; see `pooling_rules`."""

    def choose(inputs: Inputs, count: int) -> Tensor:
        here = inputs[-1]
        scores = pooled_as_outputs([
            squared_by_output(each.rotated_keys, each.values, each.rotated_queries, each.context)
            for each in inputs[-layers:]
        ])
        duplication = Duplication(here.rotated_keys, here.values, states(here), metric=similarity, kernel="exponential")
        kept: Tensor = strategy.select(log_min_max(scores), duplication, count)
        return kept

    return choose


def mean_attention(inputs: Inputs, count: int) -> Tensor:
    """Keep what the asking tokens attend to most in the mean, as SnapKV does without its pooling."""
    here = inputs[-1]
    shares = log_shares(here.rotated_keys, here.rotated_queries, here.context).exp()
    return shares.mean(dim=(0, 1)).topk(count).indices


MAXIMUM = maximum(PER_QUERY)

RULES: dict[str, Rule] = {
    PAPER: paper,
    PRESET: iwp(**PER_QUERY),
    MEAN_ATTENTION: mean_attention,
    "DivPrune": lambda inputs, count: divprune(inputs[-1].hidden, count),
    "mean of shares of everything": iwp(**MAXIMUM | {"heads": 1.0}),
    "maximum": iwp(**MAXIMUM),
    "maximum, layers l-3 to l": iwp(4, **MAXIMUM),
    "maximum, hidden states above chance": iwp(**maximum(ABOVE_CHANCE)),
    f"{PRESET}, layers l-3 to l": iwp(4, **PER_QUERY),
    f"{PRESET}, the largest alone": iwp(**{**PER_QUERY, "strategy": TopK()}),
    f"{PRESET}, hidden states above chance": iwp(**ABOVE_CHANCE),
    f"{PRESET}, states after the norm above chance": iwp(states=lambda here: here.normed, **ABOVE_CHANCE),
    f"{PRESET}, states divided by deviations above chance": iwp(
        states=lambda here: by_deviation(here.hidden), **ABOVE_CHANCE
    ),
    f"{PRESET}, states from outside above chance": iwp(states=lambda here: from_outside(here.hidden), **ABOVE_CHANCE),
    "p = 2, layers l-3 to l": iwp(4, **MAXIMUM | {"heads": 2.0}),
    "as outputs": by_outputs(1, PER_QUERY["strategy"]),
    "as outputs, layers l-3 to l": by_outputs(4, PER_QUERY["strategy"]),
    "as outputs, states divided by deviations above chance": by_outputs(
        1, ABOVE_CHANCE["strategy"], "hidden", lambda here: by_deviation(here.hidden)
    ),
    "as outputs, layers l-3 to l, states divided by deviations above chance": by_outputs(
        4, ABOVE_CHANCE["strategy"], "hidden", lambda here: by_deviation(here.hidden)
    ),
}

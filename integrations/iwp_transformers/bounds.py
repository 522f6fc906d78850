"""What a `Tolerance` of outputs reads of a layer: the queries that see all candidates, and all that these see."""

from typing import TYPE_CHECKING

import torch

from iwp_core import Tolerance
from iwp_core.samples import Sample, check_tokens
from iwp_core.strategies import OrderedStrategy
from iwp_transformers.view import LayerView

if TYPE_CHECKING:
    from iwp_transformers.plan import PruningPlan
    from iwp_transformers.selection import ImplicitWeightRule

__all__ = ["bounded_sample", "check_tolerance"]


def check_tolerance(plan: "PruningPlan", rule: "ImplicitWeightRule", *, chosen_by_rule: bool) -> None:
    """Raise if a budget that adapts cannot be kept exactly; other budgets pass.

    Raises
    ------
    TypeError
        If the strategy's choices are not nested.
    ValueError
        If a selector chooses.
    NotImplementedError
        If the layer's attention is no plain softmax over all that came before.
    """
    budget = plan.stages[0].budget
    if not isinstance(budget, Tolerance):
        return
    if not chosen_by_rule:
        msg = f"`budget` is {budget!r} beside a `selector`, expected a count or a share: a selector is told how many"
        raise ValueError(msg)
    if not isinstance(rule.strategy, OrderedStrategy):
        msg = f"`strategy` is {rule.strategy!r}, expected one with `order`: a Tolerance keeps the first of an order"
        raise TypeError(msg)
    index = plan.stages[0].layer
    parts = [name for name, _ in plan.layers[index].named_parameters() if name.rpartition(".")[2] == "sinks"]
    capped = getattr(plan.config, "attn_logit_softcapping", None)
    if budget.bound == "output" and (plan.kinds[index] != "full_attention" or parts or capped):
        msg = (
            f"`budget` is {budget!r}: layer {index} ({plan.kinds[index]}) has windows, sinks or capped logits, which"
            " the bound does not know; use bound='deletion', another `layer`, or a count"
        )
        raise NotImplementedError(msg)


def bounded_sample(view: LayerView) -> Sample:
    """Return the tokens with the queries whose outputs are bounded: of all behind the last candidate, else its own."""
    last = view.visual_positions[-1:]
    behind = view.outside[view.outside > last].sort().values
    asked = view.at(behind if len(behind) else last)
    visual = view.visual
    keys, queries = view.scaled(visual.rotated_keys), view.scaled(asked.rotated_queries)
    context = view.log_outside(asked.positions, rotated=True)
    samples = check_tokens(keys, visual.values.to(keys.dtype), queries, context=context, finite=False)
    with torch.no_grad():
        return next(iter(samples))

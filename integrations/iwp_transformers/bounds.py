"""What a `Tolerance` of outputs reads of a layer: queries that see all candidates, and everything that they see."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from iwp_core import Tolerance
from iwp_core.samples import Sample, check_tokens
from iwp_transformers.view import LayerView

if TYPE_CHECKING:
    from iwp_transformers.plan import PruningPlan

__all__ = ["bounded_sample", "check_bound"]


def check_bound(plan: "PruningPlan") -> None:
    """Check that a layer's attention is a plain causal softmax, the only kind whose outputs can be bounded.

    Raises
    ------
    NotImplementedError
        If it has windows, sinks or capped logits.
    """
    stage = plan.stages[0]
    budgets = stage.budget.values() if isinstance(stage.budget, Mapping) else (stage.budget,)
    bounded = [each for each in budgets if isinstance(each, Tolerance) and each.bound == "output"]
    if not bounded:
        return
    layer, kind = plan.layers[stage.layer], plan.kinds[stage.layer]
    sinks = any(name.rpartition(".")[2] == "sinks" for name, _ in layer.named_parameters())
    capped = any(getattr(part, "attn_logit_softcapping", None) for part in (plan.config, *layer.modules()))
    if kind != "full_attention" or sinks or capped:
        msg = (
            f"`budget` is {bounded[0]!r}: layer {stage.layer} ({kind}) has windows, sinks or capped logits, which the"
            " bound does not know; use bound='deletion', another `layer`, or a count"
        )
        raise NotImplementedError(msg)


def bounded_sample(view: LayerView) -> Sample:
    """Return the candidates with the queries whose outputs are bounded.

    These are the queries of all tokens behind the last candidate; if there are none, its own.
    """
    last, visual = view.visual_positions[-1:], view.visual
    behind = view.outside.positions[view.outside.positions > last]
    asked = view.at(behind if len(behind) else last)
    keys = view.scaled(visual.rotated_keys)
    samples = check_tokens(
        keys,
        visual.values.to(keys.dtype),
        view.scaled(asked.rotated_queries),
        context=view.log_outside(asked, rotated=True),
        finite=False,
    )
    with torch.no_grad():
        return next(iter(samples))

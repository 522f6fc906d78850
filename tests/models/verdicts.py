"""The verdict on each class of the mapping."""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers

from iwp_transformers import inspect_model, prune_visual_tokens
from iwp_transformers.families._layouts import READERS
from iwp_transformers.tiles import tile_regions
from tests.models.batches import make_batch
from tests.models.checks import BUDGET, LAYER, check_exact, paper_rule, pruning_layers, refusal, scattered, static_cache
from tests.models.factory import CLASSES, tiny_config, tiny_model
from tests.models.outside import NO_TOKENS, NO_TRUTH, UNRUNNABLE

EXACT, REFUSED, UNBUILDABLE, WRONG = "exact", "refused", "cannot be built tiny", "wrong"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is true of one class.

    `outcome` is one of the four above, `reason` says why it is not the first; the rest is told of exact classes:
    the layers that prune, whether static caches are exact, whether the paper's rule reads what attention receives, and
    whether kept tokens can be drawn.
    """

    outcome: str
    reason: str = ""
    layers: str = ""
    static_cache: str = ""
    paper_rule: str = ""
    pictures: str = ""


@cache
def verdict_on(model_type: str) -> Verdict:
    """Build a class and hold it to all checks; nothing but a fault of the tests raises."""
    with warnings.catch_warnings():
        # An inferred family warns, and so does Transformers, which is tested elsewhere.
        warnings.simplefilter("ignore")
        if model_type in NO_TOKENS or model_type in NO_TRUTH:
            return _refused_at_once(model_type)
        try:
            model = tiny_model(model_type)
            with torch.no_grad():
                model(**make_batch(model, model_type))
        except Exception as error:  # whatever the class itself says
            known = UNRUNNABLE.get(model_type)
            return Verdict(outcome=UNBUILDABLE if known else WRONG, reason=known or f"does not run unpruned: {error!r}")
        return _judged(model, model_type)


def _refused_at_once(model_type: str) -> Verdict:
    """Expect a refusal by the session's own checks, of a model without weights."""
    with torch.device("meta"):
        model = getattr(transformers, CLASSES[model_type])(tiny_config(model_type))
    try:
        prune_visual_tokens(model, budget=BUDGET, layer=LAYER, selector=scattered).close()
    except Exception as error:
        if refusal(error) is None:
            return Verdict(outcome=WRONG, reason=repr(error))
        return Verdict(outcome=REFUSED, reason=NO_TOKENS.get(model_type) or NO_TRUTH[model_type])
    return Verdict(outcome=WRONG, reason="is not refused, and cannot be judged")


def _judged(model: Any, model_type: str) -> Verdict:
    try:
        check_exact(model, model_type)
        return Verdict(
            outcome=EXACT,
            layers=pruning_layers(model, model_type),
            static_cache=static_cache(model, model_type),
            paper_rule=paper_rule(model, model_type),
            pictures=pictures_of(model, model_type),
        )
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            return Verdict(outcome=WRONG, reason=str(error) if isinstance(error, AssertionError) else repr(error))
        return Verdict(outcome=REFUSED, reason=reason)


def pictures_of(model: Any, model_type: str) -> str:
    """Return on what kept tokens can be drawn."""
    if not inspect_model(model).pictures:
        return "no"
    return "on tiles" if READERS.get(model_type) is tile_regions else "on the picture"

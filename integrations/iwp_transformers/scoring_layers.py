"""Which layers score the tokens, and the scores from layers before the pruning layer."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import cast

import torch
from torch import Tensor

from iwp_transformers.layer_inputs import Sources
from iwp_transformers.methods import Method
from iwp_transformers.methods.iwp import IWP
from iwp_transformers.plan import PruningPlan, Stage
from iwp_transformers.prompt import Prompt
from iwp_transformers.selection import Selector
from iwp_transformers.stopwatch import Stopwatch
from iwp_transformers.view import view_of

__all__ = ["LayerScores", "scoring_layers_of"]


def scoring_layers_of(layers: int | Sequence[int] | None, stages: Sequence[Stage], rule: Selector) -> tuple[int, ...]:
    """Return the layers that score, ascending; none if only the pruning layer does.

    Parameters
    ----------
    layers : int or sequence of int, optional
        As given to `prune_visual_tokens`.
    stages : sequence of Stage
        Where tokens are dropped.
    rule : callable
        The rule that chooses.

    Raises
    ------
    ValueError
        If the layers are not distinct or lie behind the pruning layer; if there are several stages; if the rule is not
        the method "iwp".
    """
    if layers is None:
        return ()
    if not isinstance(rule, IWP):
        name = "method" if isinstance(rule, Method) else "selector"
        msg = f"`layers` and `{name}` are given: only the paper's rule pools the scores of layers; drop one"
        raise ValueError(msg)
    if len(stages) > 1:
        given = tuple(stage.layer for stage in stages)
        msg = f"`layers` is {layers!r} and `layer` is {given}, expected one `layer`: stages ask only the one that drops"
        raise ValueError(msg)
    numbers, layer = _numbers(layers, stages[0].layer), stages[0].layer
    if not numbers or len(set(numbers)) < len(numbers) or numbers[0] < 0 or numbers[-1] > layer:
        msg = (
            f"`layers` is {layers!r}, expected an int from 1 to {layer + 1} (so many up to `layer`), or distinct layers"
            f" from 0 to {layer}"
        )
        raise ValueError(msg)
    return () if numbers == [layer] else tuple(numbers)


def _numbers(layers: object, layer: int) -> list[int]:
    """Return the layers that are meant, ascending; none if these are no integers."""
    given = list(layers) if isinstance(layers, Sequence) else [layers]
    numbers = [int(each) for each in given if isinstance(each, Integral) and not isinstance(each, bool)]
    if len(numbers) < len(given):
        return []
    return sorted(numbers) if isinstance(layers, Sequence) else list(range(layer + 1 - numbers[0], layer + 1))


class LayerScores:
    """What layers give the visual tokens of one forward: a number for each token, layer and sample.

    Parameters
    ----------
    plan : PruningPlan
        What to do.
    prompt : Prompt
        What stands where.
    """

    def __init__(self, plan: PruningPlan, prompt: Prompt) -> None:
        self._plan = plan
        # A rule is asked again without tokens that stay in any case, and scores may hang on which are compared.
        self._known = [
            [(rows, list[Tensor]()) for rows in _asked_rows(prompt, sample, plan.stages[0].budget)]
            for sample in range(len(prompt.visual) if plan.scoring_layers else 0)
        ]

    def read(self, sources: Sources) -> Stopwatch:
        """Read one layer, before it runs; return how long it took."""
        rule = cast("IWP", self._plan.selector)
        with Stopwatch(sources.here.hidden.device) as watch, torch.no_grad():
            for sample, known in enumerate(self._known):
                for rows, scores in known:
                    scores.append(rule.scores(view_of(sources, sample, rows, len(rows))))
        return watch

    def of(self, sample: int, candidates: Tensor) -> Sequence[Tensor]:
        """Return what was given to some candidates, by their rows: shape (N,) for each layer.

        Raises
        ------
        RuntimeError
            If these candidates were not foreseen.
        """
        if not self._known:
            return ()
        for rows, scores in self._known[sample]:
            if rows.equal(candidates.to(rows.device)):
                return scores
        msg = f"a rule is asked about {len(candidates)} visual tokens that no layer has scored; please report it"
        raise RuntimeError(msg)


def _asked_rows(prompt: Prompt, sample: int, budget: object) -> list[Tensor]:
    """Return the sets of candidates that a rule may be asked to choose among."""
    visual, pinned = prompt.visual[sample], prompt.pinned[sample]
    names = budget if isinstance(budget, Mapping) else ()
    pools = [visual[prompt.modalities[name][sample, visual]] for name in names] or [visual]
    sets = [part for pool in pools for part in (pool, pool[~pinned[pool]])]
    return [part for index, part in enumerate(sets) if len(part) and not any(part.equal(own) for own in sets[:index])]

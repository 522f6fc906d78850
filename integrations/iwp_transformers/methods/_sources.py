"""What rules that read the vision tower share: where they act, and a budget divided among images, tiles and frames."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from iwp_transformers.methods._method import Merged, Method, Reads
from iwp_transformers.methods._quotas import quotas
from iwp_transformers.view import LayerView

__all__ = ["TowerMethod", "by_source", "merged_by_source", "unprojected"]


@dataclass(frozen=True, kw_only=True)
class TowerMethod(Method):
    """A rule that reads the vision tower. By default it acts before the decoder."""

    reads: ClassVar[tuple[Reads, ...]] = ("vision tower",)
    acts: ClassVar[str] = "before the decoder"
    layer: ClassVar[int] = 0


def by_source(view: LayerView, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a rule to one image, tile or video frame at a time, and return all that it keeps.

    Each keeps the same share of its tokens, as the official codes do for crops. Tokens without patches (separators) are
    kept only if the budget exceeds the number of all others.

    Parameters
    ----------
    view : LayerView
        The candidates of a sample.
    choose : callable
        Takes the indices (n,) of the candidates of one source, and how many to keep. Returns indices among these n.

    Returns
    -------
    torch.Tensor
        Shape (M,), int64, ascending: indices of the candidates to keep.
    """
    source = view.tower.source
    groups = [(source == number).nonzero().squeeze(1) for number in range(int(source.max()) + 1)]
    groups = [group for group in groups if len(group)]
    sizes = [len(group) for group in groups]
    counts = quotas(sizes, min(view.budget, sum(sizes))) if sizes else []
    kept = [group[choose(group, count)] for group, count in zip(groups, counts, strict=True) if count]
    others = (source < 0).nonzero().squeeze(1)
    return torch.cat((*kept, others[: max(view.budget - sum(sizes), 0)])).sort().values


def merged_by_source(view: LayerView, merge: Callable[[Tensor, int], Merged]) -> Merged:
    """Apply a merging rule to one image, tile or video frame at a time, as `by_source`, and join its answers.

    Parameters
    ----------
    view : LayerView
        The candidates of a sample.
    merge : callable
        Takes the indices (n,) of the candidates of one source, and how many to keep, fewer than n: a source that keeps
        all of its tokens is left as it is. The indices in its answer count among these n.

    Returns
    -------
    Merged
        What stays of the sample.
    """
    candidates, answers = [], []

    def keep(tokens: Tensor, count: int) -> Tensor:
        if count == len(tokens):
            return torch.arange(count, device=tokens.device)
        answer = merge(tokens, count)
        candidates.append(tokens)
        answers.append(answer)
        return answer.indices

    kept = by_source(view, keep)
    states = view.visual.hidden[kept].clone()
    assignment = torch.full_like(view.visual_positions, -1)
    assignment[kept] = torch.arange(len(kept), device=kept.device)
    for tokens, answer in zip(candidates, answers, strict=True):
        rows = torch.searchsorted(kept, tokens[answer.indices])
        states[rows] = answer.states.to(states)
        if answer.assignment is not None:
            assignment[tokens] = rows[answer.assignment].masked_fill(answer.assignment < 0, -1)
    return Merged(indices=kept, states=states, assignment=assignment)


def unprojected(view: LayerView) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the rows in which tokens are merged, (N, E'), and a function that turns merged rows into states.

    At the entrance of the decoder the rows are the features before the projector, and the function is the projector. At
    a later layer, or if the model projects several patches as one, the rows are the states that enter the layer, and
    the function returns them unchanged.
    """
    features = view.tower.features
    if not view.at_entrance or view.tower.project(features[:1]) is None:
        return view.visual.hidden, lambda merged: merged
    return features, lambda merged: cast("Tensor", view.tower.project(merged))

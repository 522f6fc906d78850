"""Ask a rule what one sample keeps, and hold it to what it may answer."""

import warnings

import torch
from torch import Tensor

from iwp_core.budget import tokens_to_keep
from iwp_transformers.layer_inputs import Sources
from iwp_transformers.methods import Method
from iwp_transformers.selection import Choice, Selector, checked_choice
from iwp_transformers.view import LayerView

__all__ = ["kept_positions"]


def kept_positions(rule: Selector, sources: Sources, sample: int, candidates: Tensor, budget: float) -> Tensor:
    """Return the positions that one sample keeps of its candidates at one stage.

    Parameters
    ----------
    rule : callable
        Method or selector.
    sources : Sources
        What it may read.
    sample : int
        Row of the batch.
    candidates : torch.Tensor
        Shape (N,), int64, ascending: positions of the visual tokens that are left.
    budget : int or float
        Of all the visual tokens that the sample came with; 0 for none.

    Returns
    -------
    torch.Tensor
        Shape (M,), int64, ascending. A token whose own row is read is always among them.
    """
    prompt = sources.prompt
    total = len(prompt.visual[sample])
    count = min(tokens_to_keep(budget, total) if total and budget else 0, len(candidates))
    pinned = prompt.pinned[sample, candidates]
    chosen = _asked(rule, sources, sample, candidates, count)
    missing = candidates[pinned][~torch.isin(candidates[pinned], chosen)]
    if not len(missing):
        return chosen
    # A token whose row is read was dropped: it stays, and the rule shares the rest of the budget out.
    if "grid" in getattr(rule, "reads", ()):
        chosen = _asked(rule, sources, sample, candidates, max(count - len(missing), 0))
    else:
        count = max(count - int(pinned.sum()), 0)
        chosen = _asked(rule, sources, sample, candidates[~pinned], count)
    return torch.cat((candidates[pinned], chosen)).unique()


def _asked(rule: Selector, sources: Sources, sample: int, candidates: Tensor, count: int) -> Tensor:
    """Return the positions of `count` candidates, chosen by the rule."""
    if not count or (count == len(candidates) and isinstance(rule, Method) and not rule.own_count):
        return candidates[:count]
    device = sources.here.hidden.device
    text = sources.prompt.text[sample].nonzero().squeeze(1)
    view = LayerView(candidates.to(device), text.to(device), count, sources, sample)
    return candidates[_choice(rule, view).indices.to(candidates.device)]


def _choice(rule: Selector, view: LayerView) -> Choice:
    choice = checked_choice(rule(view), view)
    if len(choice.indices) != view.budget and not getattr(rule, "own_count", False):
        warnings.warn(
            f"`selector` returned {len(choice.indices)} indices for a budget of {view.budget}; all of them are kept."
            " A rule that chooses its own count says so by an attribute `own_count = True`",
            stacklevel=2,
        )
    return choice

"""Ask a rule which candidates of one sample to keep, and check its answer."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from iwp_core.budget import Tolerance, tokens_to_keep
from iwp_transformers.layer_inputs import Sources
from iwp_transformers.merging import Chosen
from iwp_transformers.methods import Method
from iwp_transformers.selection import Choice, Selector, checked_choice
from iwp_transformers.view import LayerView, view_of

__all__ = ["chosen_tokens"]


def chosen_tokens(
    rule: Selector,
    sources: Sources,
    sample: int,
    candidates: Tensor,
    budget: float | Tolerance | Mapping[str, float | Tolerance],
) -> Chosen:
    """Return which candidates one sample keeps at one stage.

    Parameters
    ----------
    rule : callable
        Method or selector.
    sources : Sources
        What it may read.
    sample : int
        Row of the batch.
    candidates : torch.Tensor
        Shape (N,), int64, ascending: rows, in the forward, of the visual tokens that are left.
    budget : int, float or Tolerance, or a mapping of str to these
        Number or share of all visual tokens that the sample had at first; 0 for none. A mapping has one for each
        modality.

    Returns
    -------
    Chosen
        Tokens whose own output is read are always included.

    Raises
    ------
    NotImplementedError
        If a method that merges is given a budget for each modality.
    """
    if not isinstance(budget, Mapping):
        return _chosen_from(rule, sources, sample, candidates, len(sources.prompt.visual[sample]), budget)
    rows = []
    for name, where in sources.prompt.modalities.items():
        own, share = candidates[where[sample, candidates]], budget.get(name)
        if share is None:
            rows.append(own)
            continue
        chosen = _chosen_from(rule, sources, sample, own, int(where[sample].sum()), share)
        if chosen.states is not None:
            msg = "a budget that names modalities is for methods that drop tokens, not for one that merges them"
            raise NotImplementedError(msg)
        rows.append(chosen.rows)
    return Chosen(torch.cat(rows).sort().values)


def _chosen_from(
    rule: Selector, sources: Sources, sample: int, candidates: Tensor, total: int, budget: float | Tolerance
) -> Chosen:
    """Return what is kept of candidates that share a budget. There were `total` of them at first."""
    prompt = sources.prompt
    count = budget
    if not isinstance(count, Tolerance):
        count = min(tokens_to_keep(count, total) if total and count else 0, len(candidates))
    pinned = prompt.pinned[sample, candidates]
    chosen = _asked(rule, sources, sample, candidates, count)
    missing = candidates[pinned][~torch.isin(candidates[pinned], chosen.rows)]
    if not len(missing):
        return chosen
    # A token whose row is read was dropped: it stays, and the rule shares the rest of the budget out.
    count = count if isinstance(count, Tolerance) else max(count - int(pinned.sum()), 0)
    if "grid" in getattr(rule, "reads", ()):
        # A grid has to be whole, so that it is asked for fewer of all candidates.
        chosen = _asked(rule, sources, sample, candidates, count)
    else:
        chosen = _asked(rule, sources, sample, candidates[~pinned], count)
    return _with_own(chosen, candidates, candidates[pinned], sources, sample)


def _with_own(chosen: Chosen, candidates: Tensor, own: Tensor, sources: Sources, sample: int) -> Chosen:
    """Return the chosen tokens together with tokens that stay unchanged."""
    rows: Tensor = torch.cat((own, chosen.rows)).unique()  # type: ignore[no-untyped-call]  # untyped in torch
    states, sizes, merged_into = chosen.states, chosen.sizes, chosen.merged_into
    kept = torch.searchsorted(rows, chosen.rows)
    if states is not None:
        hidden = sources.here.hidden[sample, sources.here.rows_of(sample, rows + sources.here.before)].clone()
        hidden[kept.to(hidden.device)] = states.to(hidden)
        states = hidden
    if sizes is not None:
        before = sources.sizes_of(sample, rows)
        before[kept.to(before.device)] = sizes.to(before)
        sizes = before
    if states is not None:
        went = torch.full_like(candidates, -1) if merged_into is None else merged_into
        asked = candidates[~torch.isin(candidates, own)] if len(went) < len(candidates) else candidates
        merged_into = torch.full_like(candidates, -1)
        merged_into[torch.searchsorted(candidates, asked)] = went
        merged_into[torch.searchsorted(candidates, own)] = own
    return Chosen(rows, states, sizes, merged_into)


def _asked(rule: Selector, sources: Sources, sample: int, candidates: Tensor, budget: int | Tolerance) -> Chosen:
    """Ask the rule: how many to keep is given by the budget, or by the error that a tolerance allows."""
    tolerance = budget if isinstance(budget, Tolerance) else None
    count = len(candidates) if isinstance(budget, Tolerance) else budget
    whole = count == len(candidates) and tolerance is None and isinstance(rule, Method) and not rule.own_count
    if not count or whole:
        return Chosen(candidates[:count])
    choice = _choice(rule, view_of(sources, sample, candidates, count, tolerance))
    rows = candidates[choice.indices.to(candidates.device)]
    merged_into = None
    if choice.assignment is not None:
        went = choice.assignment.to(candidates.device)
        merged_into = rows[went].where(went >= 0, -1)
    return Chosen(rows, choice.states, choice.sizes, merged_into)


def _choice(rule: Selector, view: LayerView) -> Choice:
    choice = checked_choice(rule(view), view)
    exact = view.tolerance is None and not getattr(rule, "own_count", False)
    if exact and len(choice.indices) != view.budget:
        warnings.warn(
            f"`selector` returned {len(choice.indices)} indices for a budget of {view.budget}; all of them are kept."
            " A rule that chooses its own count says so by an attribute `own_count = True`",
            stacklevel=2,
        )
    return choice

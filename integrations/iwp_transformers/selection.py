"""The rule that chooses: by default the paper's, or any callable that takes a `LayerView`."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from iwp_core import PCMMR, Strategy, Tolerance, select_tokens
from iwp_core._plugins import backend_context
from iwp_core.choice import Rule, chosen_tokens
from iwp_core.pooling import QUERY_MAGNITUDES
from iwp_core.samples import check_tokens
from iwp_transformers.bounds import bounded_sample
from iwp_transformers.view import LayerView, TokenView

__all__ = ["ImplicitWeightRule", "Query", "Selector", "check_exclusive", "checked_indices"]

Query = Literal["text", "image", "last_text"]
QUERIES = get_args(Query)
Selector = Callable[[LayerView], object]


@dataclass(frozen=True, kw_only=True)
class ImplicitWeightRule:
    """Choose by information magnitude and duplication; the parameters are those of `prune_visual_tokens`."""

    strategy: Strategy = field(default_factory=PCMMR)
    magnitude: str = "dual"
    similarity: str = "dual"
    heads: str | float = "mean"
    query: Query = "text"
    rope_in_magnitude: bool = False
    rope_in_duplication: bool = True

    def __post_init__(self) -> None:
        """Check all names now, and not in the first forward.

        Raises
        ------
        TypeError
            If `strategy` is none.
        ValueError
            If a name is unknown.
        """
        if self.query not in QUERIES:
            msg = f"`query` is {self.query!r}, expected one of {', '.join(map(repr, QUERIES))}"
            raise ValueError(msg)
        # A budget that keeps both of two tokens is answered after the checks, without asking the strategy.
        token = torch.ones(1, 2, 1)
        select_tokens(token, token, token[:, :1], 2, hidden=token[0], **self._metrics())

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        tokens = self._tokens(view)
        by_outputs = isinstance(view.budget, Tolerance) and view.budget.bound == "output"
        if view.said or by_outputs:
            (sample,) = check_tokens(**tokens, finite=False)
            bounded = bounded_sample(view) if by_outputs else None
            with backend_context(sample.keys):
                chosen: Tensor = chosen_tokens(
                    sample, view.budget, self._rule, check=False, scores=view.said, bounded=bounded
                )
            return chosen
        # The shapes are the model's own; a look at the numbers would wait for the device.
        kept: Tensor = select_tokens(**tokens, budget=view.budget, validate=False, **self._metrics())
        return kept

    def scores(self, view: LayerView) -> Tensor:
        """Return what the layer says of each candidate, shape (N,), so that several layers can be pooled."""
        (sample,) = check_tokens(**self._tokens(view), finite=False)
        with backend_context(sample.keys):
            scores: Tensor = self._rule.log_scores(sample)
        return scores

    def _tokens(self, view: LayerView) -> dict[str, Any]:
        """Return the arrays of `select_tokens`."""
        visual, asked, rotated = view.visual, self._asked(view), self.rope_in_magnitude
        # The kernel of the paper divides by the root of the width; a layer that scales otherwise is met half-way.
        keys = view.scaled(visual.rotated_keys if self.rope_in_duplication else visual.keys)
        shares = self.magnitude in QUERY_MAGNITUDES and (self.heads == "max" or not isinstance(self.heads, str))
        return {
            "keys": keys,
            "values": visual.values.to(keys.dtype),
            "queries": view.scaled(asked.rotated_queries if rotated else asked.queries),
            "magnitude_keys": view.scaled(visual.rotated_keys if rotated else visual.keys),
            "hidden": visual.hidden if self.similarity == "hidden" else None,
            # A query's share is of all that it sees, text and attention sinks included.
            "context": view.log_outside(asked.positions, rotated=rotated) if shares else None,
        }

    @property
    def _rule(self) -> Rule:
        return Rule(kernel="exponential", **self._metrics())

    def _metrics(self) -> dict[str, Any]:
        names = ("strategy", "magnitude", "similarity", "heads")
        return {name: getattr(self, name) for name in names}

    def _asked(self, view: LayerView) -> TokenView:
        if self.query == "image":
            return view.visual
        if self.query == "last_text":
            return view.at(view.question.positions[-1:])
        return view.question


def check_exclusive(rule: ImplicitWeightRule, layers: object) -> None:
    """Raise if options of the paper's rule were given beside another rule.

    Parameters
    ----------
    rule : ImplicitWeightRule
        The rule that those options describe.
    layers : object
        Which layers have a say; None by default.

    Raises
    ------
    ValueError
        If any of them is not its default.
    """
    given = [each.name for each in fields(rule) if getattr(rule, each.name) != getattr(ImplicitWeightRule(), each.name)]
    given += [] if layers is None else ["layers"]
    if given:
        names = ", ".join(f"`{name}`" for name in given)
        msg = f"{names} and `selector` are given: a selector replaces the paper's rule with its options; drop one"
        raise ValueError(msg)


def checked_indices(indices: object, view: LayerView) -> Tensor:
    """Return what a selector chose as ascending int64 indices.

    Parameters
    ----------
    indices : array-like of int
        What the selector returned.
    view : LayerView
        What it was shown.

    Returns
    -------
    torch.Tensor
        Shape (M,), int64, ascending, on the device of the visual tokens' positions.

    Raises
    ------
    TypeError
        If the indices are no integers.
    ValueError
        If they are none, not in one dimension, repeated, or outside the candidates.

    Warns
    -----
    UserWarning
        If their number is not the budget, and the selector has no attribute ``own_count = True``.
    """
    positions = view.visual_positions
    candidates = len(positions)
    chosen = torch.as_tensor(indices, device=positions.device)
    if chosen.numel() and (chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool):
        msg = f"`selector` returned {chosen.dtype}, expected integer indices into the visual tokens"
        raise TypeError(msg)
    allowed = f"expected distinct indices from 0 to {candidates - 1}, at least one, in one dimension"
    if chosen.ndim != 1 or not chosen.numel():
        msg = f"`selector` returned shape {tuple(chosen.shape)}, {allowed}"
        raise ValueError(msg)
    chosen = chosen.long().sort().values
    if bool((chosen[0] < 0) | (chosen[-1] >= candidates) | (chosen.diff() == 0).any()):
        hint = "; these are positions in the input sequence" if bool(torch.isin(chosen, positions).all()) else ""
        msg = f"`selector` returned {chosen.tolist()}, {allowed}{hint}"
        raise ValueError(msg)
    return chosen

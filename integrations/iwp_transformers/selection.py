"""The rule that chooses: by default the paper's, or any callable that takes a `LayerView`."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from iwp_core import PCMMR, Strategy, select_tokens
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
        visual = view.visual
        asked = self._asked(view)
        keys = visual.rotated_keys if self.rope_in_duplication else visual.keys
        own_keys = visual.rotated_keys if self.rope_in_magnitude else visual.keys
        queries = asked.rotated_queries if self.rope_in_magnitude else asked.queries
        # The kernel of the paper divides by the root of the width; a layer that scales otherwise is met half-way.
        scale = (view.scaling * keys.shape[-1] ** 0.5) ** 0.5
        if abs(scale - 1) > torch.finfo(torch.float32).eps:
            keys, own_keys, queries = (part.float() * scale for part in (keys, own_keys, queries))
        kept: Tensor = select_tokens(
            keys,
            visual.values.to(keys.dtype),
            queries,
            view.budget,
            magnitude_keys=own_keys,
            hidden=visual.hidden if self.similarity == "hidden" else None,
            # The shapes are the model's own; a look at the numbers would wait for the device.
            validate=False,
            **self._metrics(),
        )
        return kept

    def _metrics(self) -> dict[str, Any]:
        names = ("strategy", "magnitude", "similarity", "heads")
        return {name: getattr(self, name) for name in names}

    def _asked(self, view: LayerView) -> TokenView:
        if self.query == "image":
            return view.visual
        if self.query == "last_text":
            return view.at(view.question.positions[-1:])
        return view.question


def check_exclusive(rule: ImplicitWeightRule) -> None:
    """Raise if options of the paper's rule were given beside another rule.

    Parameters
    ----------
    rule : ImplicitWeightRule
        The rule that those options describe.

    Raises
    ------
    ValueError
        If any of them is not its default.
    """
    given = [each.name for each in fields(rule) if getattr(rule, each.name) != getattr(ImplicitWeightRule(), each.name)]
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

"""The rule that chooses: by default the paper's, or any callable that takes a `LayerView`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from iwp_core import PCMMR, Strategy, select_tokens
from iwp_transformers.capture import LayerView, TokenView

__all__ = ["ImplicitWeightRule", "Query", "Selector", "checked_indices"]

Query = Literal["text", "image", "last_text"]
QUERIES = ("text", "image", "last_text")
Selector = Callable[[LayerView], object]


@dataclass(frozen=True, kw_only=True)
class ImplicitWeightRule:
    """Choose by information magnitude and duplication; the parameters are those of `prune_visual_tokens`."""

    strategy: Strategy = field(default_factory=PCMMR)
    magnitude: str = "dual"
    similarity: str = "dual"
    heads: str = "mean"
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
        select_tokens(token, token, token[:, 0], 2, hidden=token[0], **self._metrics())

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual = view.visual
        asked = self._asked(view)
        kept: Tensor = select_tokens(
            visual.rotated_keys if self.rope_in_duplication else visual.keys,
            visual.values,
            asked.rotated_queries if self.rope_in_magnitude else asked.queries,
            view.budget,
            magnitude_keys=visual.rotated_keys if self.rope_in_magnitude else visual.keys,
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
            return view.rows.at(view.question.positions[-1:])
        return view.question


def checked_indices(indices: object, candidates: int, device: torch.device) -> Tensor:
    """Return what a selector chose as ascending int64 indices.

    Parameters
    ----------
    indices : array-like of int
        What the selector returned.
    candidates : int
        Number of visual tokens N of the sample.
    device : torch.device
        Where the result goes.

    Returns
    -------
    torch.Tensor
        Shape (M,), int64, ascending.

    Raises
    ------
    TypeError
        If the indices are no integers.
    ValueError
        If they are none, not in one dimension, repeated, or outside the candidates.
    """
    chosen = torch.as_tensor(indices, device=device)
    if chosen.numel() and (chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool):
        msg = f"`selector` returned {chosen.dtype}, expected integer indices into the visual tokens"
        raise TypeError(msg)
    allowed = f"expected distinct indices from 0 to {candidates - 1}, at least one, in one dimension"
    if chosen.ndim != 1 or not chosen.numel():
        msg = f"`selector` returned shape {tuple(chosen.shape)}, {allowed}"
        raise ValueError(msg)
    chosen = chosen.long().sort().values
    if chosen[0] < 0 or chosen[-1] >= candidates or bool((chosen.diff() == 0).any()):
        msg = f"`selector` returned {chosen.tolist()}, {allowed}"
        raise ValueError(msg)
    return chosen

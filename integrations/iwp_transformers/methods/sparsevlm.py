"""SparseVLM: at several layers keep the visual tokens that raters among the text attend to most."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import rotary_gravity, sparsevlm, sparsevlm_raters
from iwp_transformers.methods._method import Paper, Reads
from iwp_transformers.methods._schedule import Schedule, Staged
from iwp_transformers.view import LayerView

__all__ = ["SparseVLM"]


@dataclass(frozen=True, kw_only=True)
class SparseVLM(Staged):
    """`iwp_core.methods.sparsevlm`, without recycling: what is dropped is gone.

    The official code appends tokens that it merges of the dropped ones, at new positions: they belong to no token of
    the prompt, so that such a model has no exact counterpart of full length. The schedule is that for 192 of 576
    tokens; text is what follows the first visual token.

    Attributes
    ----------
    version : int
        2 divides the attention by what rotary positions alone cause, and lets the 14 heads vote that look most.
    base : float
        Base of the rotary frequencies, for version 2.
    """

    name: ClassVar[str] = "sparsevlm"
    paper: ClassVar[Paper | None] = Paper(title="SparseVLM", year=2024, arxiv="2410.04417")
    reads: ClassVar[tuple[Reads, ...]] = ("attention of the layer before", "input embeddings")
    schedule: ClassVar[Schedule] = Schedule(depth=32, layers=(3, 7, 16), shares=(300 / 576, 200 / 576, 110 / 576))
    version: int = 1
    base: float = 10_000.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TypeError
            If `base` is no number.
        ValueError
            If `version` is neither 1 nor 2, or `base` below 1.
        """
        if self.version not in (1, 2):
            msg = f"`version` is {self.version!r}, expected 1 or 2"
            raise ValueError(msg)
        rotary_gravity(torch.ones(1), torch.ones(1), width=2, base=self.base)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual, text = view.visual, view.question
        raters = sparsevlm_raters(view.embedded(visual).hidden, view.embedded(text).hidden)
        asked = view.at(text.positions[raters])
        attention = view.attention_rows(asked)
        gravity = None
        if self.version == 2:  # noqa: PLR2004 - of the official code
            rows, columns = (view.unpadded_positions(tokens).to(attention) for tokens in (asked, visual))
            gravity = rotary_gravity(rows, columns, width=visual.keys.shape[-1], base=self.base).to(attention)
        everyone = torch.arange(len(asked), device=attention.device)
        kept: Tensor = sparsevlm(attention, everyone, view.budget, gravity=gravity)
        return kept

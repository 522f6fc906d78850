"""SparseVLM: at several layers, keep the visual tokens that a part of the text, the raters, attends to most."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import (
    rotary_gravity,
    sparsevlm,
    sparsevlm_counts,
    sparsevlm_raters,
    sparsevlm_recycle,
    sparsevlm_scores,
)
from iwp_transformers.methods._method import Merged, Paper, Reads
from iwp_transformers.methods._schedule import Schedule, Staged
from iwp_transformers.view import LayerView

__all__ = ["SparseVLM"]


@dataclass(frozen=True, kw_only=True)
class SparseVLM(Staged):
    """`iwp_core.methods.sparsevlm` at several layers. In version 1 some dropped tokens come back as means of clusters.

    The raters are found once, before the decoder, among the text after the first visual token. The schedule is the
    published one for 192 of 576 tokens. Deviations of recycling: a merged token stands in the place and at the position
    of its cluster's centre, where the official code appends it at a new position. It counts within the budget
    (`iwp_core.methods.sparsevlm_counts`). No noise is added to the densities.

    Attributes
    ----------
    version : {1, 2}
        Version 2 divides the attention by its part that comes from rotary positions alone, and averages only the 14
        heads in which the raters attend most to visual tokens.
    base : float
        Base of the rotary frequencies, at least 1, for version 2.
    recycling : bool, optional
        Whether dropped tokens are recycled. Default: in version 1 only, as published.
    """

    name: ClassVar[str] = "sparsevlm"
    paper: ClassVar[Paper | None] = Paper(title="SparseVLM", year=2024, arxiv="2410.04417")
    reads: ClassVar[tuple[Reads, ...]] = ("states", "attention of the layer before", "input embeddings")
    schedule: ClassVar[Schedule] = Schedule(depth=32, layers=(3, 7, 16), shares=(300 / 576, 200 / 576, 110 / 576))
    version: int = 1
    base: float = 10_000.0
    recycling: bool | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TypeError
            If `base` is not a real number, or `recycling` is not a bool.
        ValueError
            If `version` is neither 1 nor 2, or `base` is below 1.
        """
        if self.version not in (1, 2):
            msg = f"`version` is {self.version!r}, expected 1 or 2"
            raise ValueError(msg)
        if self.recycling is not None and not isinstance(self.recycling, bool):
            msg = f"`recycling` is {self.recycling!r}, expected True, False, or None for what the version does"
            raise TypeError(msg)
        rotary_gravity(torch.ones(1), torch.ones(1), width=2, base=self.base)

    def __call__(self, view: LayerView) -> Tensor | Merged:
        """Return the indices to keep, shape (M,), with the states of recycled tokens if there are any."""
        visual, attention, gravity = view.visual, *self._rated(view)
        everyone = torch.arange(attention.shape[1], device=attention.device)
        recycling = self.version == 1 if self.recycling is None else self.recycling
        count, clusters = sparsevlm_counts(len(visual), view.budget) if recycling else (view.budget, 0)
        kept: Tensor = sparsevlm(attention, everyone, count, gravity=gravity)
        if not clusters:
            return kept
        kept, scores = kept.to(visual.hidden.device), sparsevlm_scores(attention, everyone, gravity=gravity)
        merged = sparsevlm_recycle(visual.hidden, scores.to(visual.hidden), kept, clusters=clusters)
        went = merged.assignment.where(merged.assignment < 0, merged.assignment + count)
        went[kept] = torch.arange(count, device=kept.device)
        return Merged(
            indices=torch.cat((kept, merged.kept)),
            states=torch.cat((visual.hidden[kept], merged.tokens)),
            assignment=went,
        )

    def _rated(self, view: LayerView) -> tuple[Tensor, Tensor | None]:
        """Return the attention of the raters to the candidates in the layer before, (Hq, R, N), and its gravity."""
        whole = view.entrance
        # Without any text the candidates rate each other, as far as they are left.
        text = whole.question if len(whole.text) else view.embedded(view.visual)
        asked = view.at(text.positions[sparsevlm_raters(whole.visual.hidden, text.hidden)])
        attention = view.attention_rows(asked)
        if self.version == 1:
            return attention, None
        rows, columns = (view.unpadded_positions(tokens).to(attention) for tokens in (asked, view.visual))
        gravity: Tensor = rotary_gravity(rows, columns, width=view.visual.keys.shape[-1], base=self.base)
        return attention, gravity.to(attention)

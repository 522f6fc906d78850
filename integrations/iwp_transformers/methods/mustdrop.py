"""MustDrop, its stages in the language model: drop visual tokens that neither all text nor any text token looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import mustdrop
from iwp_transformers.methods._method import Budget, Layers, Paper, Reads
from iwp_transformers.methods._schedule import Schedule, Staged
from iwp_transformers.view import LayerView

__all__ = ["MustDrop"]


@dataclass(frozen=True, kw_only=True)
class MustDrop(Staged):
    """`iwp_core.methods.mustdrop`, without the merging in the vision tower and the key tokens that come from it.

    As published a stage keeps what passes two thresholds, whatever its number. With a budget it keeps as many as the
    budget of those that text looks at most; the paper has no schedule of counts, here each stage keeps two thirds of
    the stage before. Text is what follows the first visual token.

    Attributes
    ----------
    share_threshold, single_threshold : float, optional
        Those of the paper, instead of a budget: both or none.
    """

    name: ClassVar[str] = "mustdrop"
    paper: ClassVar[Paper | None] = Paper(title="MustDrop", year=2024, arxiv="2411.10803")
    reads: ClassVar[tuple[Reads, ...]] = ("attention of the layer before",)
    schedule: ClassVar[Schedule] = Schedule(depth=32, layers=(3, 7, 11, 15), shares=(1.0, 2 / 3, 4 / 9, 8 / 27))
    own_count: ClassVar[bool] = True
    share_threshold: float | None = None
    single_threshold: float | None = None

    def __post_init__(self) -> None:
        """Check the thresholds.

        Raises
        ------
        TypeError
            If one is no number.
        ValueError
            If one is given without the other, or is out of range.
        """
        if (self.share_threshold is None) != (self.single_threshold is None):
            msg = (
                f"`share_threshold` is {self.share_threshold!r} and `single_threshold` is {self.single_threshold!r},"
                " expected both or none"
            )
            raise ValueError(msg)
        if self.share_threshold is not None and self.single_threshold is not None:
            token = torch.ones(1, 1, 1)
            mustdrop(token, None, share_threshold=self.share_threshold, single_threshold=self.single_threshold)

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
        """Return the stages; with thresholds, each may keep everything.

        Raises
        ------
        TypeError
            As `Staged.stages`.
        ValueError
            As `Staged.stages`, or if a budget is given beside thresholds.
        """
        if self.share_threshold is None:
            return super().stages(layer, budget, layers)
        if budget is not None:
            msg = f"`budget` is {budget!r}, but mustdrop was given thresholds, which say what stays: drop one of them"
            raise ValueError(msg)
        if not isinstance(layer, Sequence):
            layer = self.schedule.scaled_layers(layers, layer)
        return layer, (1.0,) * len(layer)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        attention = view.attention_rows(view.question)
        if self.share_threshold is None or self.single_threshold is None:
            kept: Tensor = mustdrop(attention, None, budget=view.budget)
            return kept
        thresholds = {"share_threshold": self.share_threshold, "single_threshold": self.single_threshold}
        kept = mustdrop(attention, None, **thresholds)
        # A layer needs a token: where thresholds let none pass, the most looked at stays.
        return kept if len(kept) else mustdrop(attention, None, budget=1)

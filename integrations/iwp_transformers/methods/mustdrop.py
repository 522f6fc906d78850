"""MustDrop: merge alike windows, then drop visual tokens that neither all text nor any text token looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from iwp_core.methods import mustdrop
from iwp_transformers.methods._method import Budget, Layers, Merged, Paper, Reads
from iwp_transformers.methods._schedule import Schedule, Staged
from iwp_transformers.methods.mustdrop_merging import TowerPhase
from iwp_transformers.view import LayerView

__all__ = ["MustDrop"]


@dataclass(frozen=True, kw_only=True)
class MustDrop(Staged):
    """`iwp_core.methods.mustdrop` at several layers, behind `iwp_core.methods.mustdrop_merge` in front of the decoder.

    As published a stage keeps what passes two thresholds, and the key tokens of the vision tower. With a budget it
    keeps those that text looks at most; the paper has no schedule of counts, here each stage keeps two thirds of the
    stage before. Text is what follows the first visual token. Deviations of merging: see `TowerPhase`.

    Attributes
    ----------
    share_threshold, single_threshold : float, optional
        Those of the paper, instead of a budget: both or none.
    merging : bool, optional
        Whether windows are merged, in a stage at layer 0, and key tokens pass; by default with thresholds only.
    merge_threshold, window, key_share : float, int, float
        See `TowerPhase`.
    """

    name: ClassVar[str] = "mustdrop"
    paper: ClassVar[Paper | None] = Paper(title="MustDrop", year=2024, arxiv="2411.10803")
    reads: ClassVar[tuple[Reads, ...]] = ("vision tower", "grid", "attention of the layer before")
    schedule: ClassVar[Schedule] = Schedule(depth=32, layers=(3, 7, 11, 15), shares=(1.0, 2 / 3, 4 / 9, 8 / 27))
    own_count: ClassVar[bool] = True
    share_threshold: float | None = None
    single_threshold: float | None = None
    merging: bool | None = None
    merge_threshold: float = 0.8
    window: int = 3
    key_share: float = 0.08

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TypeError
            If one is no number, or `merging` no bool.
        ValueError
            If a threshold is given without the other, or an option is out of range.
        """
        if len(self._thresholds) == 1:
            msg = f"{self._thresholds} is one of `share_threshold` and `single_threshold`, expected both or none"
            raise ValueError(msg)
        mustdrop(torch.ones(1, 1, 1), None, **self._thresholds)
        if self.merging is not None and not isinstance(self.merging, bool):
            msg = f"`merging` is {self.merging!r}, expected True, False, or None: with thresholds alone"
            raise TypeError(msg)
        _ = self._phase

    @property
    def _phase(self) -> TowerPhase:
        return TowerPhase(threshold=self.merge_threshold, window=self.window, share=self.key_share)

    @property
    def _thresholds(self) -> dict[str, float]:
        named = {"share_threshold": self.share_threshold, "single_threshold": self.single_threshold}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def _merges(self) -> bool:
        return bool(self._thresholds) if self.merging is None else self.merging

    def reads_at(self, layer: int) -> tuple[Reads, ...]:
        """Return what it reads: tower and grid at layer 0, attention behind it, and the tower there where it merges."""
        return self.reads[2:] if not self._merges else self.reads[::2] if layer else self.reads[:2]

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
        """Return the stages; with thresholds, each may keep everything.

        Raises
        ------
        TypeError
            As `Staged.stages`.
        ValueError
            As `Staged.stages`, or if a budget is given beside thresholds, or layer 0 beside merging.
        """
        if self._thresholds:
            if budget is not None:
                msg = f"`budget` is {budget!r}, but mustdrop was given thresholds, which say what stays: drop one"
                raise ValueError(msg)
            layer = layer if isinstance(layer, Sequence) else self.schedule.scaled_layers(layers, layer)
            budget = (1.0,) * len(layer)
        layer, budget = super().stages(layer, budget, layers)
        if not self._merges or not isinstance(layer, Sequence) or not isinstance(budget, Sequence):
            return layer, budget
        if 0 in layer:
            msg = f"`layer` is {layer!r}, but mustdrop merges at layer 0 by itself: expected layers from 1 on"
            raise ValueError(msg)
        return (0, *layer), (1.0, *budget)

    def __call__(self, view: LayerView) -> Tensor | Merged:
        """Return the indices to keep, shape (M,), ascending; with the means of windows in front of the decoder."""
        if self._merges and view.at_entrance:
            return self._phase.merge(view)
        attention = view.attention_rows(view.question)
        if not self._thresholds:
            return cast("Tensor", mustdrop(attention, None, budget=view.budget))
        keys = self._phase.key_tokens(view).to(attention.device) if self._merges else ()
        kept: Tensor = mustdrop(attention, keys if len(keys) else None, **self._thresholds)
        # A layer needs a token: where thresholds let none pass, the most looked at stays.
        return kept if len(kept) else mustdrop(attention, None, budget=1)

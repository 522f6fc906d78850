"""MustDrop: merge similar windows, then drop visual tokens that get little attention from the text."""

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
    """`iwp_core.methods.mustdrop` at several layers, after `iwp_core.methods.mustdrop_merge` before the decoder.

    As published, a stage keeps the tokens that pass either of two thresholds, and the key tokens of the vision tower.
    With a budget, it keeps the tokens with the most attention from the text after the first visual token. The paper has
    no schedule for budgets; here each stage keeps two thirds of the one before. `TowerPhase` lists deviations.

    Attributes
    ----------
    share_threshold, single_threshold : float, optional
        Thresholds of `iwp_core.methods.mustdrop`, in place of a budget. Give both or none.
    merging : bool, optional
        Whether windows are merged in a stage at layer 0, and key tokens are kept. Default: with thresholds only.
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
            If a number has the wrong type, or `merging` is not a bool.
        ValueError
            If only one threshold is given, or an option is out of range.
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
        """Return what a stage reads: at layer 0 tower and grid, later the attention, and the tower too if it merges."""
        return self.reads[2:] if not self._merges else self.reads[::2] if layer else self.reads[:2]

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
        """Return the stages. With thresholds, the budget of each stage is all tokens.

        Raises
        ------
        TypeError
            As `Staged.stages`.
        ValueError
            As `Staged.stages`; if a budget is given with thresholds, or layer 0 while windows are merged.
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
        """Return the indices to keep, shape (M,), ascending; before the decoder, with the means of merged windows."""
        if self._merges and view.at_entrance:
            return self._phase.merge(view)
        attention = view.attention_rows(view.question)
        if not self._thresholds:
            return cast("Tensor", mustdrop(attention, None, budget=view.budget))
        keys = self._phase.key_tokens(view).to(attention.device) if self._merges else ()
        kept: Tensor = mustdrop(attention, keys if len(keys) else None, **self._thresholds)
        # A layer needs a token: where thresholds let none pass, the most looked at stays.
        return kept if len(kept) else mustdrop(attention, None, budget=1)

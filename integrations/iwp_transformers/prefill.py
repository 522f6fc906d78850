"""The forward that sees visual tokens for the first time: choose, remove, and put the output back at full length."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.utils.generic import ModelOutput

from iwp_core.budget import tokens_to_keep
from iwp_transformers.capture import LayerRows, LayerView
from iwp_transformers.masks import causal_mask
from iwp_transformers.plan import CacheMemory, Entrance, PruningPlan
from iwp_transformers.record import LayerCost, PruningRecord
from iwp_transformers.remove import KeptRows, kept_rows, restore_attentions
from iwp_transformers.replay import Replay
from iwp_transformers.selection import checked_indices
from iwp_transformers.stopwatch import Stopwatch

__all__ = ["Prefill"]


class Prefill:
    """One forward that sees visual tokens for the first time.

    Parameters
    ----------
    plan : PruningPlan
        What to do.
    visual, real : torch.Tensor
        Shape (B, T), bool: which tokens are visual, and which are no padding.
    replay : Replay, optional
        The run without a cache that this is, or continues.
    """

    def __init__(self, plan: PruningPlan, visual: Tensor, real: Tensor, replay: Replay | None) -> None:
        self._plan = plan
        self._visual = tuple(row.nonzero().squeeze(1) for row in visual & real)
        self._real = real
        self._text = real & ~visual
        self._previous: tuple[Tensor, ...] | None = None
        self._rows: KeptRows | None = None
        self._shared: dict[str, Any] = {}
        self.replay = replay
        self.cache: Cache | None = None
        self.record: PruningRecord | None = None
        self.memory: CacheMemory | None = None

    def enter(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> Entrance:
        """Prepare what layer `index` is about to get."""
        plan = self._plan
        if index < plan.layer:
            self._previous = (hidden, *arguments["position_embeddings"])
            return None
        if index == plan.layer:
            self.cache = arguments.get("past_key_values")
            self._choose(hidden, arguments)
            self._previous = None
        if self._rows is None or self.memory is None:
            return None
        if index < plan.removal:
            mask = causal_mask(plan.config, hidden, self.memory.visible, self.cache, index)
            return hidden, {**arguments, "attention_mask": mask}
        if index == plan.removal:
            rows = self._rows.to(hidden.device)
            hidden = rows.gather(hidden)
            self._shared = {
                "attention_mask": causal_mask(plan.config, hidden, rows.real, self.cache, index),
                "position_embeddings": tuple(
                    rows.to(part.device).gather(part) for part in arguments["position_embeddings"]
                ),
                # FlashAttention takes positions with gaps for several sequences in one row.
                "position_ids": None,
            }
        return hidden, {**arguments, **self._shared}

    def finish(self, output: ModelOutput) -> ModelOutput:
        """Put what the language model returns back at full length."""
        if self._rows is None or self.memory is None:
            return output
        rows, first = self._rows, self._plan.removal
        last = output["last_hidden_state"]
        if first < len(self._plan.layers):
            last = rows.scatter(last)
        else:
            # A single layer is not shortened, it hides what was dropped.
            last = last.where(self.memory.visible.to(last.device).unsqueeze(-1), 0)
        output["last_hidden_state"] = last
        if output.get("hidden_states"):
            # A state is None where the caller selected others; the last one is the model's output.
            between = output["hidden_states"][first + 1 : -1]
            output["hidden_states"] = (
                *output["hidden_states"][: first + 1][: len(self._plan.layers)],
                *(None if state is None else rows.scatter(state) for state in between),
                None if output["hidden_states"][-1] is None else last,
            )
        if output.get("attentions"):
            columns = rows.columns()
            output["attentions"] = restore_attentions(output["attentions"], first, columns, columns, rows.full)
        return output

    def _choose(self, hidden: Tensor, arguments: Mapping[str, Any]) -> None:
        chosen_before = self.replay.kept if self.replay else None
        with Stopwatch(hidden.device) as watch, torch.no_grad():
            kept = chosen_before or self._positions_to_keep(hidden, arguments["position_embeddings"])
            keep = self._text.clone()
            for row, positions in zip(keep, kept, strict=True):
                row[positions] = True
            full, pruned = (mask.sum(1).tolist() for mask in (self._real, keep))
        if full != pruned:
            self._rows = kept_rows(keep, max(pruned))
            self.memory = CacheMemory(self._real, keep, self._rows.columns())
        if chosen_before is None:
            self.record = self._recorded(kept, full, pruned, hidden, watch)
            self.replay = self.replay and replace(self.replay, kept=kept)

    def _recorded(
        self, kept: Sequence[Tensor], full: list[int], pruned: list[int], hidden: Tensor, watch: Stopwatch
    ) -> PruningRecord:
        plan = self._plan
        return PruningRecord(
            layer=plan.layer,
            visual=self._visual,
            kept=tuple(kept),
            lengths_full=tuple(full),
            lengths_pruned=tuple(pruned),
            padded_full=hidden.shape[1],
            padded_pruned=hidden.shape[1] if self._rows is None else self._rows.index.shape[1],
            removal=plan.removal,
            layers=len(plan.layers),
            cost=LayerCost.of(plan.layers[plan.layer], plan.config, hidden.element_size()),
            cached=self.cache is not None,
            static=bool(getattr(self.cache, "is_compileable", False)),
            watch=watch,
        )

    def _positions_to_keep(self, hidden: Tensor, position_embeddings: Sequence[Tensor]) -> tuple[Tensor, ...]:
        views = self._views(hidden, position_embeddings)
        return tuple(
            positions if view is None else positions[self._chosen(view).to(positions.device)]
            for positions, view in zip(self._visual, views, strict=True)
        )

    def _views(self, hidden: Tensor, position_embeddings: Sequence[Tensor]) -> list[LayerView | None]:
        """Return one view for each sample; None where there is nothing to choose."""
        plan, before = self._plan, self._previous
        now = (hidden, *position_embeddings)
        views: list[LayerView | None] = []
        for sample, (visual, text) in enumerate(zip(self._visual, self._text, strict=True)):
            count = tokens_to_keep(plan.budget, len(visual)) if len(visual) else 0
            if count == len(visual) and (plan.by_default_rule or not count):
                views.append(None)
                continue
            views.append(
                LayerView(
                    rows=self._layer_rows(plan.layer, now, sample),
                    visual_positions=visual.to(hidden.device),
                    text_positions=text.nonzero().squeeze(1).to(hidden.device),
                    budget=count,
                    previous=None if before is None else self._layer_rows(plan.layer - 1, before, sample),
                )
            )
        return views

    def _layer_rows(self, index: int, states: Sequence[Tensor], sample: int) -> LayerRows:
        # Rotary embeddings have batch size 1 where all samples share their positions.
        hidden, cos, sin = (part[sample % part.shape[0]] for part in states)
        return LayerRows(self._plan.family, self._plan.layers[index], hidden, cos, sin)

    def _chosen(self, view: LayerView) -> Tensor:
        indices = self._plan.selector(view)
        if isinstance(indices, Tensor) and self._plan.by_default_rule:
            return indices
        return checked_indices(indices, len(view.visual_positions), view.visual_positions.device)

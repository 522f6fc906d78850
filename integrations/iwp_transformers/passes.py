"""What happens to the layers during one forward: a prefill that prunes, or a step on a cache that was pruned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from iwp_core.budget import tokens_to_keep
from iwp_transformers.capture import LayerRows, LayerView
from iwp_transformers.families import Family
from iwp_transformers.masks import causal_mask
from iwp_transformers.record import LayerCost, PruningRecord
from iwp_transformers.remove import KeptRows, kept_rows, restore_attention
from iwp_transformers.replay import Replay
from iwp_transformers.selection import ImplicitWeightRule, Selector, checked_indices
from iwp_transformers.stopwatch import Stopwatch

__all__ = ["CacheMemory", "Decode", "Entrance", "Prefill", "PruningPlan"]

# The input of a layer and its keyword arguments, as changed; None leaves both alone.
Entrance = tuple[Tensor, dict[str, Any]] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningPlan:
    """What a session was asked to do, with the model it does it to."""

    family: Family
    config: Any
    layers: Sequence[nn.Module]
    layer: int
    budget: float
    selector: Selector

    @property
    def removal(self) -> int:
        """First layer whose sequence is shorter.

        The first layer's cache tells `generate` how many tokens were seen. So where pruning starts at layer 0, that
        layer keeps all tokens and only hides the dropped ones, which is the same to those that stay.
        """
        return max(self.layer, 1)

    @property
    def by_default_rule(self) -> bool:
        """Whether the paper's rule chooses, which keeps everything when the budget allows it."""
        return isinstance(self.selector, ImplicitWeightRule)


@dataclass(frozen=True, eq=False)
class CacheMemory:
    """What later steps need to know of a cache that was pruned.

    Attributes
    ----------
    real : torch.Tensor
        Shape (B, S), bool: which of all tokens seen are no padding.
    visible : torch.Tensor
        Shape (B, S), bool: which of them were not dropped either.
    columns : torch.Tensor
        Shape (B, K): full position of each row that the shortened layers hold, -1 for filling and padding.
    """

    real: Tensor
    visible: Tensor
    columns: Tensor

    @property
    def seen(self) -> int:
        """Number of tokens S that the first layer holds."""
        return int(self.visible.shape[1])

    def extended(self, real: Tensor) -> "CacheMemory":
        """Return the memory after new tokens, of which `real`, shape (B, Q), are no padding."""
        new = torch.arange(self.seen, self.seen + real.shape[1], device=real.device).expand_as(real)
        return CacheMemory(
            real=torch.cat((self.real, real), dim=1),
            visible=torch.cat((self.visible, real), dim=1),
            columns=torch.cat((self.columns, new.where(real, -1)), dim=1),
        )


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
        self.cache: Any = None
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
        if first < len(self._plan.layers):
            output["last_hidden_state"] = rows.scatter(output["last_hidden_state"])
        if output.get("hidden_states"):
            states = list(output["hidden_states"])
            states[first + 1 :] = [None if part is None else rows.scatter(part) for part in states[first + 1 :]]
            if states[-1] is not None and first < len(self._plan.layers):
                states[-1] = output["last_hidden_state"]
            output["hidden_states"] = tuple(states)
        if output.get("attentions"):
            columns = rows.columns()
            _restore_attentions(output, first, columns, columns, rows.full)
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
        plan = self._plan
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
                    previous=self._previous and self._layer_rows(plan.layer - 1, self._previous, sample),
                )
            )
        return views

    def _layer_rows(self, index: int, states: Sequence[Tensor], sample: int) -> LayerRows:
        # Rotary embeddings have batch size 1 where all samples share their positions.
        hidden, cos, sin = (part[sample % part.shape[0]] for part in states)
        return LayerRows(self._plan.family, self._plan.layers[index], hidden, cos, sin)

    def _chosen(self, view: LayerView) -> Tensor:
        indices = self._plan.selector(view)
        if self._plan.by_default_rule:
            return indices
        return checked_indices(indices, len(view.visual_positions), view.visual_positions.device)


class Decode:
    """One forward on a cache that an earlier prefill pruned.

    Parameters
    ----------
    plan : PruningPlan
        What was done.
    memory : CacheMemory
        What is known of the cache before this step.
    real : torch.Tensor
        Shape (B, Q), bool: which of the new tokens are no padding.
    cache : transformers.Cache
        The cache.
    """

    def __init__(self, plan: PruningPlan, memory: CacheMemory, real: Tensor, cache: Any) -> None:
        self._plan = plan
        self._mask: Any = None
        self.memory = memory.extended(real)
        self.cache = cache

    def enter(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> Entrance:
        """Prepare what layer `index` is about to get."""
        plan = self._plan
        if index < plan.layer:
            return None
        if index < plan.removal:
            mask = causal_mask(plan.config, hidden, self.memory.visible, self.cache, index)
            return hidden, {**arguments, "attention_mask": mask}
        if index == plan.removal:
            self._mask = causal_mask(plan.config, hidden, self.memory.columns >= 0, self.cache, index)
        return hidden, {**arguments, "attention_mask": self._mask}

    def finish(self, output: ModelOutput) -> ModelOutput:
        """Put attention weights, if they were asked for, back at full length."""
        if output.get("attentions"):
            new = output["last_hidden_state"].shape[1]
            rows = torch.arange(new, device=self.memory.columns.device).expand(self.memory.columns.shape[0], -1)
            _restore_attentions(output, self._plan.removal, rows, self.memory.columns, self.memory.seen)
        return output


def _restore_attentions(output: ModelOutput, first: int, rows: Tensor, columns: Tensor, full: int) -> None:
    weights = output["attentions"]
    # The first layer always holds all tokens; with a static cache it has room for more than there are.
    queries = full if rows is columns else rows.shape[1]
    shape = (queries, weights[0].shape[-1])
    output["attentions"] = (
        *weights[:first],
        *(restore_attention(part, rows, columns, shape) for part in weights[first:]),
    )

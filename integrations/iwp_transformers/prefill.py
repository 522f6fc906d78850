"""The forward that sees visual tokens for the first time: choose, remove, and put the output back at full length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.utils.generic import ModelOutput

from iwp_transformers.arguments import ShortenedArguments
from iwp_transformers.choosing import chosen_tokens
from iwp_transformers.cost import LayerCost, cache_sizes, layer_structure, measured_cost
from iwp_transformers.deepstack import DeepFeatures
from iwp_transformers.grids import regions_of
from iwp_transformers.layer_inputs import LayerInputs, Sources
from iwp_transformers.layer_kinds import attending_layers
from iwp_transformers.merging import Chosen, TokenSizes, replaced_states
from iwp_transformers.plan import PruningPlan, Stage
from iwp_transformers.prompt import Prompt
from iwp_transformers.pruned_cache import Lease, mark, shorten_static
from iwp_transformers.record import PruningRecord, StageRecord
from iwp_transformers.rows import KeptRows, kept_rows, restored_attention
from iwp_transformers.stopwatch import Stopwatch
from iwp_transformers.tower_view import TowerReader
from iwp_transformers.training_compression import training_compression
from iwp_transformers.versions import cache_in

__all__ = ["Costs", "Kept", "Prefill"]

# What layers cost, by their structure; measured in a session's first prefill.
Costs = dict[tuple[Any, ...], LayerCost]
# For each sample, what was kept.
Kept = tuple[Chosen, ...]


@dataclass(frozen=True, eq=False)
class Drop:
    """What was dropped at one stage.

    Attributes
    ----------
    layer, removal : int
        Layers from which the dropped tokens are hidden, and removed.
    rows : KeptRows
        The rows that stay.
    visible : torch.Tensor
        Shape (B, T), bool: which tokens are neither padding nor dropped.
    arguments : ShortenedArguments
        Shortens what the layers are called with.
    log_sizes : torch.Tensor or None
        Shape (B, T): logarithm of how many tokens each stands for in attention; None if all stand for themselves.
    """

    layer: int
    removal: int
    rows: KeptRows
    visible: Tensor
    arguments: ShortenedArguments
    log_sizes: Tensor | None


class Prefill:
    """One forward that sees visual tokens for the first time.

    Parameters
    ----------
    plan : PruningPlan
        What to do.
    prompt : Prompt
        What stands where.
    features : mapping
        What the multimodal model was called with, by name.
    chosen : sequence of tuple of Chosen
        What was kept at each stage, where an earlier forward has chosen them already; empty otherwise.
    costs : dict
        What is known of the layers' costs; this forward adds to it.
    deep : DeepFeatures, optional
        What the decoder would add between its layers.
    tower : TowerReader, optional
        What reads the vision tower, where the rule does.

    Attributes
    ----------
    cache : transformers.Cache or None
        The cache that the layers are called with.
    kept : list of tuple of Chosen
        What was kept at each stage so far.
    """

    def __init__(
        self,
        plan: PruningPlan,
        prompt: Prompt,
        features: Mapping[str, Any],
        chosen: Sequence[Kept],
        costs: Costs,
        deep: DeepFeatures | None = None,
        tower: TowerReader | None = None,
    ) -> None:
        self._plan, self._prompt, self._tower = plan, prompt, tower
        self._features = {name: value for name, value in features.items() if value is not None}
        self._chosen, self._costs, self._deep = chosen, costs, deep
        self._structures: list[tuple[Any, ...]] = []
        self._first: LayerInputs | None = None
        self._previous: LayerInputs | None = None
        self._drops: list[Drop] = []
        self._removed: Drop | None = None
        self._stages: list[StageRecord] = []
        self._watches: list[Stopwatch] = []
        self._sizes = TokenSizes()
        self.cache: Cache | None = None
        self.kept: list[Kept] = []

    @property
    def replayed(self) -> bool:
        """Whether an earlier forward chose what is kept, and has a record of it."""
        return bool(self._chosen)

    @property
    def _rows(self) -> KeptRows | None:
        return None if self._removed is None else self._removed.rows

    def enter(self, index: int, hidden: Tensor, arguments: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return what layer `index` gets in place of what it is about to get."""
        if self.cache is None:
            self.cache = cache_in(arguments)
        if hidden.ndim != 3:  # noqa: PLR2004 - samples, tokens, width
            msg = (
                f"the decoder's layers take states of shape {tuple(hidden.shape)}, expected a row for each token of"
                " each sample: several streams of a token are not served"
            )
            raise NotImplementedError(msg)
        if self._deep is not None:
            hidden = self._deep.added(index, hidden, self._rows)
        hidden, present = self._changed(index, hidden, arguments)
        self._measure(index, hidden, present)
        for stage in self._plan.stages:
            if stage.layer == index:
                hidden = self._drop(stage, self._inputs(index, hidden, present))
                hidden, present = self._changed(index, hidden, arguments)
        upcoming = any(stage.layer == index + 1 for stage in self._plan.stages)
        self._previous = self._inputs(index, hidden, present) if upcoming else None
        if len(self.kept) == len(self._plan.stages):
            self._first = None
        elif not index:
            self._first = self._inputs(index, hidden, present)
        if self._sizes.log is None or "attention_mask" not in present:
            return hidden, present
        keys = hidden.shape[1] if self.cache is None else self.cache.get_mask_sizes(hidden.shape[1], index)[0]
        mask = self._sizes.weighed(present["attention_mask"], hidden, self._rows, keys)
        return hidden, {**present, "attention_mask": mask}

    def finish(self, output: ModelOutput) -> ModelOutput:
        """Put what the decoder returns back at full length."""
        if not self._drops:
            return output
        last = output["last_hidden_state"]
        if self._removed is not None:
            last = self._removed.rows.scatter(last)
        else:
            # A single layer is not shortened, it hides what was dropped.
            last = last.where(self._drops[-1].visible.to(last.device).unsqueeze(-1), 0)
        output["last_hidden_state"] = last
        if getattr(output, "hidden_states", None):
            output["hidden_states"] = self._restored_states(output["hidden_states"], last)
        if getattr(output, "attentions", None):
            # The first layer always holds all tokens, and a static cache more columns than those.
            keys = output["attentions"][0].shape[-1]
            indices = attending_layers(self._plan.kinds, len(output["attentions"]))
            output["attentions"] = tuple(
                self._restored_attention(index, weights, keys)
                for index, weights in zip(indices, output["attentions"], strict=True)
            )
        return output

    def mark_cache(self, lease: Lease) -> None:
        """Write on the cache what later steps need to know."""
        if self.cache is not None and self._drops:
            kinds = self._plan.kinds
            stages = [(each.layer, each.removal, each.rows, each.visible, each.log_sizes) for each in self._drops]
            mark(self.cache, stages, lease, kinds)

    def record(self) -> PruningRecord:
        """Return what was kept, and what it cost."""
        full = self._prompt.real.shape[1]
        held = [full] * len(self._plan.layers)
        for stage in self._stages:
            held[stage.removal :] = [stage.padded] * len(held[stage.removal :])
        return PruningRecord(
            visual=self._prompt.visual,
            stages=tuple(self._stages),
            lengths_full=tuple(self._prompt.real.sum(1).tolist()),
            padded_full=full,
            training_compression=training_compression(self._plan.model_config),
            costs=[self._costs[structure] for structure in self._structures],
            cache_sizes=[] if self.cache is None else cache_sizes(self.cache, full, held),
            watches=tuple(self._watches),
        )

    def _changed(self, index: int, hidden: Tensor, arguments: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return inputs and arguments without what has been dropped so far."""
        due = [drop for drop in self._drops if drop.removal <= index]
        if not due:
            hiding = self._drops[-1].arguments.hiding(index, hidden, arguments) if self._drops else arguments
            return hidden, hiding
        if due[-1] is not self._removed:
            rows = due[-1].rows.to(hidden.device)
            place = rows.index if self._removed is None else rows.within(self._removed.rows.to(hidden.device))
            hidden = hidden.gather(1, place.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
            self._removed = due[-1]
        return hidden, due[-1].arguments.shortened(index, hidden, arguments)

    def _inputs(self, index: int, hidden: Tensor, arguments: dict[str, Any]) -> LayerInputs:
        full = self._prompt.real.shape[1]
        if self._removed is None:
            columns = torch.arange(full, device=hidden.device).expand(hidden.shape[0], -1)
        else:
            columns = self._removed.rows.columns().to(hidden.device)
        log_sizes = self._sizes.columns(self._rows)
        return LayerInputs(self._plan.layers[index], hidden, arguments, columns, full, self._plan.gather, log_sizes)

    def _drop(self, stage: Stage, inputs: LayerInputs) -> Tensor:
        """Choose what stays from a stage on, prepare its removal, and return the layer's inputs with its states."""
        plan, device = self._plan, inputs.hidden.device
        with Stopwatch(device) as watch, torch.no_grad():
            chosen = self._chosen[len(self.kept)] if self._chosen else None
            kept = self._choose(stage, inputs) if chosen is None else chosen
            keep = self._prompt.text.clone()
            for row, each in zip(keep, kept, strict=True):
                row[each.positions] = True
            lengths = keep.sum(1).tolist()
        before = self._stages[-1].lengths if self._stages else tuple(self._prompt.real.sum(1).tolist())
        self._watches.append(watch)
        self.kept.append(kept)
        removal, padded = plan.removal(stage), inputs.hidden.shape[1]
        weighed = self._sizes.update((keep.shape[0], keep.shape[1]), kept, device, plan.config)
        if weighed or tuple(lengths) != before:
            rows = kept_rows(keep, max(lengths))
            arguments = ShortenedArguments(plan.config, self.cache, rows, keep)
            self._drops.append(Drop(stage.layer, removal, rows, keep, arguments, self._sizes.log))
            shorten_static(self.cache, removal, rows.full - max(lengths))
            padded = max(lengths)
        positions, went = (tuple(getattr(each, name) for each in kept) for name in ("positions", "merged_into"))
        sizes: dict[str, Any] = {"lengths": tuple(lengths), "padded": padded}
        self._stages.append(StageRecord(layer=stage.layer, removal=removal, kept=positions, merged_into=went, **sizes))
        return replaced_states(inputs, kept)

    def _choose(self, stage: Stage, inputs: LayerInputs) -> Kept:
        """Return, for each sample, the positions of the visual tokens that stay."""
        plan = self._plan
        sources = Sources(
            here=inputs,
            before=self._previous,
            first=self._first or inputs,
            prompt=self._prompt,
            ids=self._features["input_ids"],
            regions=partial(regions_of, plan, self._features),
            norm=getattr(plan.text, "norm", None),
            tower=self._tower,
            log_sizes=self._sizes.log,
        )
        candidates = [each.positions for each in self.kept[-1]] if self.kept else self._prompt.visual
        return tuple(
            chosen_tokens(plan.selector, sources, sample, positions, stage.budget)
            for sample, positions in enumerate(candidates)
        )

    def _measure(self, index: int, hidden: Tensor, arguments: dict[str, Any]) -> None:
        """Learn what a layer costs, unless one of its structure is known."""
        layer = self._plan.layers[index]
        structure = layer_structure(layer)
        self._structures.append(structure)
        if structure not in self._costs:
            self._costs[structure] = measured_cost(self._plan.config, index, layer, hidden, arguments)

    def _restored_states(self, states: Sequence[Tensor | None], last: Tensor) -> tuple[Tensor | None, ...]:
        """Return the states between the layers at full length; one is None where the caller selected others."""
        restored = list(states)
        for place in range(1, len(states) - 1):
            # What stands at `place` is what the layer before returned.
            drops = [drop for drop in self._drops if drop.removal < place]
            state = states[place]
            if drops and state is not None:
                restored[place] = drops[-1].rows.scatter(state)
        restored[-1] = None if states[-1] is None else last
        return tuple(restored)

    def _restored_attention(self, index: int, weights: Tensor, keys: int) -> Tensor:
        drops = [drop for drop in self._drops if drop.removal <= index]
        if not drops:
            return weights
        columns, full = drops[-1].rows.columns(), drops[-1].rows.full
        return restored_attention(weights, columns, columns, (full, keys))

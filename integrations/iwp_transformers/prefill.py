"""A forward that brings visual tokens: choose, remove, and put the output back at full length."""

from collections.abc import Mapping, Sequence
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
from iwp_transformers.drops import Drop, Drops
from iwp_transformers.later_turns import EarlierTokens
from iwp_transformers.layer_inputs import LayerInputs, Sources
from iwp_transformers.layer_kinds import ATTENDING, attending_layers
from iwp_transformers.masks import check_weighing
from iwp_transformers.merging import Chosen, TokenSizes, replaced_states
from iwp_transformers.plan import PruningPlan, Stage
from iwp_transformers.prompt import Prompt
from iwp_transformers.pruned_cache import Lease, mark, shorten_static
from iwp_transformers.record import PruningRecord, StageRecord
from iwp_transformers.rows import kept_rows
from iwp_transformers.scoring_layers import LayerScores
from iwp_transformers.stopwatch import Stopwatch
from iwp_transformers.token_grids import regions_of
from iwp_transformers.tower_view import TowerReader
from iwp_transformers.training_compression import training_compression
from iwp_transformers.versions import cache_in

__all__ = ["Costs", "Kept", "Prefill"]

# What layers cost, by their structure; measured in a session's first prefill.
Costs = dict[tuple[Any, ...], LayerCost]
# For each sample, what was kept.
Kept = tuple[Chosen, ...]


class Prefill:
    """One forward that brings visual tokens.

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
    earlier : EarlierTokens
        What the cache holds before the forward.
    tower : TowerReader, optional
        What reads the vision tower, where the rule does.

    Attributes
    ----------
    cache : transformers.Cache or None
        The cache that the layers are called with.
    kept : list of tuple of Chosen
        What was kept at each stage so far, by rows; records and views count from the beginning of the cache.
    """

    def __init__(
        self,
        plan: PruningPlan,
        prompt: Prompt,
        features: Mapping[str, Any],
        chosen: Sequence[Kept],
        costs: Costs,
        deep: DeepFeatures | None,
        earlier: EarlierTokens,
        tower: TowerReader | None,
    ) -> None:
        self._plan, self._prompt, self._earlier, self._tower = plan, prompt, earlier, tower
        self._features = {name: value for name, value in features.items() if value is not None}
        self._chosen, self._costs, self._deep = chosen, costs, deep
        self._structures: list[tuple[Any, ...]] = []
        self._first: LayerInputs | None = None
        self._previous: LayerInputs | None = None
        self._drops = Drops()
        self._stages: list[StageRecord] = []
        self._watches: list[Stopwatch] = []
        self._sizes, self._scores = TokenSizes(), LayerScores(plan, prompt)
        self.cache: Cache | None = None
        self.kept: list[Kept] = []

    @property
    def replayed(self) -> bool:
        """Whether an earlier forward chose what is kept, and has a record of it."""
        return bool(self._chosen)

    def enter(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return what layer `index` gets in place of what it is about to get."""
        if self.cache is None:
            self.cache = cache_in(arguments)
        if hidden.ndim != 3:  # noqa: PLR2004 - samples, tokens, width
            msg = (
                f"the decoder's layers take states of shape {tuple(hidden.shape)}, expected a row for each token of"
                " each sample: several streams of a token are not served"
            )
            raise NotImplementedError(msg)
        arguments = self._earlier.masked(self._plan.config, self._plan.kinds, index, hidden, arguments)
        if self._deep is not None:
            hidden = self._deep.added(index, hidden, self._drops.rows)
        hidden, present = self._drops.changed(index, hidden, arguments)
        self.measure(index, hidden, present)
        if index in self._plan.scoring_layers and not self._chosen:
            self._watches.append(self._scores.read(self._sources(self._inputs(index, hidden, present))))
        if not index:
            # What enters the decoder, before anything of it is dropped or merged.
            self._first = self._inputs(index, hidden, present)
        for stage in self._plan.stages:
            if stage.layer == index:
                hidden = self._drop(stage, self._inputs(index, hidden, present))
                hidden, present = self._drops.changed(index, hidden, arguments)
        upcoming = any(stage.layer == index + 1 for stage in self._plan.stages)
        self._previous = self._inputs(index, hidden, present) if upcoming else None
        if len(self.kept) == len(self._plan.stages):
            self._first = None
        if "attention_mask" in present and self._sizes.log is not None:
            keys = hidden.shape[1]
            keys = keys if self.cache is None else self.cache.get_mask_sizes(keys, index)[0]
            weighed = self._sizes.weighed(present["attention_mask"], hidden, self._drops.rows, keys)
            present = {**present, "attention_mask": weighed}
        return hidden, present

    def measure(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> None:
        """Learn what a layer costs, unless one of its structure is known."""
        layer = self._plan.layers[index]
        self._structures.append(structure := layer_structure(layer))
        if structure not in self._costs:
            self._costs[structure] = measured_cost(self._plan.config, index, layer, hidden, arguments)

    def check_complete(self) -> None:
        """Raise unless every layer came by.

        Raises
        ------
        RuntimeError
            If one did not: it was put in the place of another since the session began, or was not called.
        """
        seen, layers = len(self._structures), len(self._plan.layers)
        if seen < layers and seen == getattr(self._plan.config, "num_hidden_layers", None):
            msg = (
                f"the decoder has {layers} layers and calls {seen}, the `num_hidden_layers` of its configuration: close"
                " the session, shorten the decoder's `layers` to as many, and begin a new one"
            )
            raise RuntimeError(msg)
        if seen != layers:
            msg = (
                f"{seen} of {layers} layers were called with the hooks of this session: some were replaced, removed or"
                " left out since it began; close it, and begin a new one"
            )
            raise RuntimeError(msg)

    def finish(self, output: ModelOutput) -> ModelOutput:
        """Put what the decoder returns back at full length."""
        if getattr(output, "attentions", None):
            indices = attending_layers(self._plan.kinds, len(output["attentions"]))
            rows = [self._drops.rows_at(index) for index in range(len(self._plan.layers))]
            restored = self._earlier.restored(output["attentions"], indices, self._plan.kinds, rows)
            output["attentions"] = tuple(map(self._drops.without_hidden_queries, indices, restored))
        if not self._drops.made:
            return output
        last = self._drops.restored(output["last_hidden_state"])
        output["last_hidden_state"] = last
        if getattr(output, "hidden_states", None):
            output["hidden_states"] = self._drops.restored_states(output["hidden_states"], last)
        return output

    def mark_cache(self, lease: Lease) -> None:
        """Write on the cache what later steps need to know."""
        # Checkpointed layers leave the cache as it was.
        if self.cache is not None and self._drops.made and int(self.cache.get_seq_length()) > self._earlier.count:
            kinds, drafts = self._plan.kinds, self._prompt.drafts
            length = self._prompt.real.shape[1] - drafts
            stages = [drop.told(length) for drop in self._drops.made]
            mark(self.cache, stages, lease, kinds, before=self._earlier.count, drafts=drafts)

    def record(self) -> PruningRecord:
        """Return what was kept, and what it cost."""
        full, before = self._prompt.real.shape[1], self._earlier.count
        cached = self._earlier.held(len(self._plan.layers))
        held = [full] * len(cached)
        for stage in self._stages:
            held[stage.removal :] = [stage.padded] * len(held[stage.removal :])
        # A recurrent state is as large whatever entered it.
        held = [
            old + new if kind in ATTENDING else before + full
            for old, new, kind in zip(cached, held, self._plan.kinds, strict=True)
        ]
        return PruningRecord(
            visual=tuple(rows + before for rows in self._prompt.visual),
            stages=tuple(stage.behind(before) for stage in self._stages),
            cached_full=before,
            cached=cached,
            lengths_full=tuple(self._prompt.real.sum(1).tolist()),
            padded_full=full,
            training_compression=training_compression(self._plan.model_config),
            costs=[self._costs[structure] for structure in self._structures],
            cache_sizes=[] if self.cache is None else cache_sizes(self.cache, before + full, held),
            watches=tuple(self._watches),
            modalities={
                name: tuple(rows + before for rows in each) for name, each in self._prompt.rows_by_modality().items()
            },
        )

    def _inputs(self, index: int, hidden: Tensor, arguments: dict[str, Any]) -> LayerInputs:
        full, before = self._prompt.real.shape[1], self._earlier.count
        rows = self._drops.rows
        if rows is None:
            columns = torch.arange(full, device=hidden.device).expand(hidden.shape[0], -1)
        else:
            columns = rows.columns().to(hidden.device)
        return LayerInputs(
            layer=self._plan.layers[index],
            hidden=hidden,
            arguments=arguments,
            columns=columns.where(columns < 0, columns + before),
            length=before + full - self._prompt.drafts,
            before=before,
            gather=self._plan.gather,
            log_sizes=self._sizes.columns(rows),
        )

    def _drop(self, stage: Stage, inputs: LayerInputs) -> Tensor:
        """Choose what stays from a stage on, prepare its removal, and return the layer's inputs with its states."""
        plan, device = self._plan, inputs.hidden.device
        with Stopwatch(device) as watch, torch.no_grad():
            chosen = self._chosen[len(self.kept)] if self._chosen else None
            kept = self._choose(stage, inputs) if chosen is None else chosen
            keep = self._prompt.others.clone()
            for row, each in zip(keep, kept, strict=True):
                row[each.rows] = True
            lengths = keep.sum(1).tolist()
        before = self._stages[-1].lengths if self._stages else tuple(self._prompt.real.sum(1).tolist())
        self._watches.append(watch)
        self.kept.append(kept)
        removal, padded = plan.removal(stage), self._stages[-1].padded if self._stages else keep.shape[1]
        weighed = self._sizes.update((keep.shape[0], keep.shape[1]), kept, device)
        if weighed:
            check_weighing(plan.config._attn_implementation)
            self._earlier.check_weighing()
        if weighed or tuple(lengths) != before:
            rows = kept_rows(keep, max(lengths))
            arguments = ShortenedArguments(plan.config, self.cache, rows, keep, self._earlier.columns)
            self._drops.made.append(Drop(stage.layer, removal, rows, keep, arguments, self._sizes.log))
            if not self._earlier.count:
                shorten_static(self.cache, removal, rows.full - max(lengths))
            padded = max(lengths)
        self._stages.append(
            StageRecord(
                layer=stage.layer,
                removal=removal,
                kept=tuple(each.rows for each in kept),
                lengths=tuple(lengths),
                padded=padded,
                merged_into=tuple(each.merged_into for each in kept),
            )
        )
        places = [inputs.rows_of(sample, each.rows + inputs.before) for sample, each in enumerate(kept)]
        return replaced_states(inputs.hidden, places, kept)

    def _choose(self, stage: Stage, inputs: LayerInputs) -> Kept:
        """Return, for each sample, the rows of the visual tokens that stay."""
        plan, sources = self._plan, self._sources(inputs)
        return tuple(
            chosen_tokens(plan.selector, sources, sample, rows, stage.budget)
            for sample, rows in enumerate(sources.left)
        )

    def _sources(self, inputs: LayerInputs) -> Sources:
        """Return what views of a layer are computed from."""
        return Sources(
            here=inputs,
            before=self._previous,
            first=self._first or inputs,
            prompt=self._prompt,
            left=[each.rows for each in self.kept[-1]] if self.kept else self._prompt.visual,
            ids=self._features["input_ids"],
            regions=partial(regions_of, self._plan, self._features),
            norm=getattr(self._plan.text, "norm", None),
            tower=self._tower,
            log_sizes=self._sizes.log,
            scores=self._scores.of,
        )

"""From what a decoder is called with to the prefill that it is: in one piece, a chunk, or nothing to be pruned."""

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from iwp_transformers.callers import drafted_tokens, running_generation
from iwp_transformers.chunked_prefill import ChunkedPrefill
from iwp_transformers.chunks import Chunk
from iwp_transformers.decode import check_step
from iwp_transformers.deepstack import DeepFeatures, take_away
from iwp_transformers.forwards import Forward, ThreadState
from iwp_transformers.labels import labelled_rows
from iwp_transformers.later_turns import EarlierTokens
from iwp_transformers.masks import PADDING, real_tokens
from iwp_transformers.plan import PruningPlan
from iwp_transformers.prefill import Costs, Prefill
from iwp_transformers.prompt import prompt_of
from iwp_transformers.refusals import check_continuation, check_prefill
from iwp_transformers.tower import TowerWatch
from iwp_transformers.tower_view import tower_reader
from iwp_transformers.versions import cache_in

__all__ = ["Preparation"]


class Preparation:
    """Makes the prefills of one session.

    Parameters
    ----------
    plan : PruningPlan
        What to do.
    thread : ThreadState
        What the running thread is in the middle of.
    costs : dict
        What is known of the layers' costs.
    watch : TowerWatch, optional
        What listens to the vision tower, where the rule reads it.
    count_held : callable
        Told by 1 and -1 how many prompts in chunks are held.
    """

    def __init__(
        self,
        plan: PruningPlan,
        thread: ThreadState,
        costs: Costs,
        watch: TowerWatch | None,
        count_held: Callable[[int], None],
    ) -> None:
        self._plan, self._thread, self._costs, self._watch, self._count_held = plan, thread, costs, watch, count_held

    def prepare(self, forward: Forward, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give a forward the prefill that it is, unless its prompt has no visual tokens.

        Parameters
        ----------
        forward : Forward
            The forward of the multimodal model.
        kwargs : mapping
            What its decoder is called with, by name.

        Returns
        -------
        dict or None
            What the decoder is to be called with instead; None where there is nothing to prune.

        Raises
        ------
        NotImplementedError
            If it could not be exact.
        """
        plan, tokens, cache = self._plan, forward.arguments["input_ids"], cache_in(kwargs)
        placeholders = plan.family.placeholders(plan.model_config, forward.arguments, plan.named)
        modalities = {name: tokens == token for name, token in placeholders.items()}
        absent = [name for name, where in modalities.items() if not bool(where.any())]
        if absent and (forward.chunk is None or not forward.chunk.index):
            _warn_of_absent(absent)
        if len(absent) == len(modalities):
            return None
        check_prefill(plan, kwargs, tokens.shape[1], forward.chunk)
        check_step(cache, tokens.shape[0])
        deep, others = take_away(kwargs, len(plan.layers))
        if forward.chunk is not None and cache is not None:
            forward.held = self._held(forward.chunk, cache)
            forward.held.begin(deep)
            if not forward.chunk.last:
                return others
            # Layers from the first that prunes on hold nothing yet.
            deep, cache = forward.held.whole_features(), None
        if kwargs.get("use_cache") is False and not torch.is_grad_enabled():
            forward.generation = running_generation(plan.model)
        forward.prefill = self._prefill(forward, modalities, kwargs.get("attention_mask"), deep, cache)
        if forward.held is not None:
            forward.held.complete(forward.prefill)
        return others

    def _held(self, chunk: Chunk, cache: Cache) -> ChunkedPrefill:
        """Return what is held of the prompt that a chunk belongs to."""
        if not chunk.index:
            held = self._thread.held[cache] = ChunkedPrefill(self._plan, chunk, cache)
            self._count_held(1)
            weakref.finalize(held, self._count_held, -1).atexit = False
        return check_continuation(self._thread.held.get(cache), chunk)

    def _prefill(
        self,
        forward: Forward,
        modalities: Mapping[str, Tensor],
        mask: object,
        deep: DeepFeatures | None,
        cache: Cache | None,
    ) -> Prefill:
        plan, arguments, tokens = self._plan, forward.arguments, forward.arguments["input_ids"]
        earlier = EarlierTokens(cache, tokens.shape[1])
        given = arguments.get("attention_mask")
        if forward.chunk is not None or (isinstance(given, Tensor) and given.ndim == PADDING):
            mask = given
        real = real_tokens(mask, (tokens.shape[0], tokens.shape[1]), tokens.device, earlier.count)
        replay = self._thread.replay if forward.generation is not None else None
        chosen = () if replay is None else replay.kept_for(forward.generation, tokens)
        tower = (
            None if self._watch is None else tower_reader(self._watch, plan.model_config, arguments, forward.encoded)
        )
        prompt = prompt_of(modalities, real, labelled_rows(tokens), drafted_tokens(plan.model))
        return Prefill(plan, prompt, arguments, chosen, self._costs, deep, earlier, tower)


def _warn_of_absent(modalities: Sequence[str]) -> None:
    warnings.warn(
        f"features of {' and '.join(modalities)} came, but none of their placeholders stands in `input_ids`: which"
        " tokens are visual is not known, and this forward prunes none of them",
        stacklevel=2,
    )

"""`prune_visual_tokens`: hooks on a model, from the call until the session is closed."""

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.utils.generic import ModelOutput

from iwp_core import PCMMR, Strategy
from iwp_core.budget import check_budget
from iwp_transformers.decode import Decode
from iwp_transformers.families import family_of
from iwp_transformers.masks import unpadded
from iwp_transformers.plan import CacheMemory, Entrance, PruningPlan
from iwp_transformers.prefill import Prefill
from iwp_transformers.record import PruningRecord
from iwp_transformers.refusals import (
    check_continuation,
    check_history,
    check_ids,
    check_layer,
    check_layer_types,
    check_prefill,
    check_unknown_cache,
    check_unused,
)
from iwp_transformers.replay import Replay
from iwp_transformers.selection import ImplicitWeightRule, Query, Selector

__all__ = ["PruningSession", "prune_visual_tokens"]


P = ParamSpec("P")
R = TypeVar("R")


def _uncompiled(hook: Callable[P, R]) -> Callable[P, R]:
    """Keep a hook out of compiled graphs: it reads what the last forward left behind."""
    return cast("Callable[P, R]", torch.compiler.disable(hook))  # type: ignore[no-untyped-call]  # untyped in torch


def prune_visual_tokens(
    model: nn.Module,
    *,
    budget: float,
    layer: int = 4,
    strategy: Strategy = PCMMR(),  # noqa: B008 - frozen, so one default instance is safe
    magnitude: str = "dual",
    similarity: str = "dual",
    heads: str = "mean",
    query: Query = "text",
    rope_in_magnitude: bool = False,
    rope_in_duplication: bool = True,
    selector: Selector | None = None,
    history: int = 16,
) -> "PruningSession":
    """Let a vision-language model drop visual tokens from one decoder layer on, until the session is closed.

    Parameters
    ----------
    model : torch.nn.Module
        A model of a supported family, with or without its language head.
    budget : int or float
        Visual tokens to keep for each sample: a count >= 1, or a share in (0, 1].
    layer : int, default 4
        First decoder layer, counted from 0, that no longer sees the dropped tokens.
    strategy : Strategy, default PCMMR()
        How magnitude and duplication are weighed.
    magnitude, similarity, heads : str
        Options of `iwp_core.select_tokens`.
    query : {"text", "image", "last_text"}
        Whose queries weigh the tokens: those of the text after the first visual token, of the visual tokens, or of
        the last text token. Their mean counts, unless `heads` lets each of them score.
    rope_in_magnitude, rope_in_duplication : bool
        Whether queries and keys carry their rotary embedding in magnitude, and keys in duplication.
    selector : callable, optional
        Another rule: takes a `LayerView`, returns the indices to keep. It replaces all options from `strategy` on.
    history : int, default 16
        Number of records held.

    Returns
    -------
    PruningSession
        A context manager; pruning has begun already, and ends with the `with` block or `close()`.

    Raises
    ------
    TypeError
        If no family serves the model (the message lists those that are served), or `budget` is no real number.
    ValueError
        If `budget`, `layer`, `query` or `history` is outside what is allowed, or the model is being pruned already.
    NotImplementedError
        If a layer from `layer` on attends within a sliding window.

    Notes
    -----
    Text rows equal those of the full-length model whose layers from `layer` on may not attend to the dropped tokens.
    What the model returns keeps its shapes: rows of dropped tokens are zero in `last_hidden_state`, in the
    `hidden_states` behind `layer`, and in `attentions`. With ``layer=0`` the first layer hides the dropped tokens
    instead of removing them, since its cache tells `generate` how many tokens were seen.

    A forward raises NotImplementedError where it could not be exact: new images on a cache that holds tokens, a
    prefill in chunks, a cache that was cropped, copied or pruned by another session, `inputs_embeds` without
    `input_ids`, packed sequences, a four-dimensional mask that forbids more than padding, gradient checkpointing.

    A cache that was pruned can be used while its session is open, and not after. Steps that `generate` has compiled
    for static caches are compiled again when a session begins; what you compile yourself, compile within it.

    Examples
    --------
    >>> with prune_visual_tokens(model, budget=0.222, layer=4) as session:  # doctest: +SKIP
    ...     output = model.generate(**inputs)
    >>> print(session.records[-1].summary())  # doctest: +SKIP
    """
    check_budget(budget)
    rule = ImplicitWeightRule(
        strategy=strategy,
        magnitude=magnitude,
        similarity=similarity,
        heads=heads,
        query=query,
        rope_in_magnitude=rope_in_magnitude,
        rope_in_duplication=rope_in_duplication,
    )
    return PruningSession(
        model, budget=budget, layer=layer, selector=rule if selector is None else selector, history=history
    )


class PruningSession:
    """The hooks on one model, and the records of what they did; made by `prune_visual_tokens`.

    Attributes
    ----------
    records : collections.deque of PruningRecord
        One for each prefill that saw visual tokens, the newest last.
    """

    def __init__(self, model: nn.Module, *, budget: float, layer: int, selector: Selector, history: int) -> None:
        family = family_of(model)
        inner: Any = model if type(model).__name__ == family.models[1] else getattr(model, "model", model)
        text: Any = inner.language_model
        check_unused(text, type(self))
        check_layer(layer, text.layers)
        check_layer_types(text.config, layer)
        check_history(history)
        self.records: deque[PruningRecord] = deque(maxlen=history)
        self._plan = PruningPlan(
            family=family, config=text.config, layers=text.layers, layer=layer, budget=budget, selector=selector
        )
        self._model_config = inner.config
        self._signature = inspect.signature(type(inner).forward)
        self._arguments: Mapping[str, Any] = {}
        self._pass: Prefill | Decode | None = None
        self._replay: Replay | None = None
        self._memories: WeakKeyDictionary[Cache, CacheMemory] = WeakKeyDictionary()
        self._hooks = ExitStack()
        self._attach(inner, text)
        if "_compiled_call" in vars(model):
            # `generate` compiles steps on static caches, and what was compiled before does not look for new hooks.
            torch.compiler.reset()

    def close(self) -> None:
        """Take every hook off the model; closing twice is harmless."""
        self._hooks.close()
        self._pass, self._replay, self._arguments = None, None, {}
        self._memories.clear()

    def __enter__(self) -> Self:
        """Return the session, which is attached already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _attach(self, inner: nn.Module, text: nn.Module) -> None:
        handles = [
            inner.register_forward_pre_hook(self._read_inputs, with_kwargs=True),
            text.register_forward_pre_hook(self._begin, with_kwargs=True),
            text.register_forward_hook(self._finish, with_kwargs=True, always_call=True),
            inner.register_forward_hook(self._forget_inputs, always_call=True),
        ]
        # A selector may ask for the attention of the layer before.
        first = self._plan.layer if self._plan.by_default_rule else max(self._plan.layer - 1, 0)
        for index in range(first, len(self._plan.layers)):
            hook = partial(self._enter_layer, index)
            handles.append(self._plan.layers[index].register_forward_pre_hook(hook, with_kwargs=True))
        for handle in handles:
            self._hooks.callback(handle.remove)

    @_uncompiled
    def _read_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember what the multimodal model was called with; the language model is called with embeddings only."""
        self._pass = None
        self._arguments = self._signature.bind_partial(module, *args, **kwargs).arguments

    @_uncompiled
    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell a prefill that prunes from a step on a pruned cache, from anything else."""
        arguments, self._arguments, self._pass = self._arguments, {}, None
        # The multimodal model hands embeddings over; called by itself, the language model may be given ids.
        embeddings = kwargs.get("inputs_embeds")
        tokens: Tensor = kwargs.get("input_ids", *args[:1]) if embeddings is None else embeddings
        cache = kwargs.get("past_key_values")
        seen = 0 if cache is None else int(cache.get_seq_length())
        visual = self._visual_tokens(arguments)
        if visual is not None:
            check_prefill(self._plan, kwargs, seen)
            visual = visual.to(tokens.device)
            real = unpadded(kwargs.get("attention_mask"), past=visual[:, :0], length=visual.shape[1])
            self._pass = Prefill(self._plan, visual, real, self._replayed(arguments, kwargs))
        elif cache is not None:
            self._pass = self._continued(cache, seen, tokens, kwargs.get("attention_mask"))

    @_uncompiled
    def _enter_layer(
        self, index: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hand the running pass what layer `index` is about to get."""
        if self._pass is None:
            return None
        entrance: Entrance = self._pass.enter(index, args[0], kwargs)
        return None if entrance is None else ((entrance[0], *args[1:]), entrance[1])

    @_uncompiled
    def _finish(
        self, _module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], output: ModelOutput | None
    ) -> ModelOutput | None:
        """Restore what the language model returns, and remember its cache; after an exception `output` is None."""
        running, self._pass = self._pass, None
        if running is None or output is None:
            return output
        if running.cache is not None:
            if running.memory is not None:
                self._memories[running.cache] = running.memory
            else:
                self._memories.pop(running.cache, None)
        if isinstance(running, Prefill):
            self._replay = running.replay
            if running.record is not None:
                self.records.append(running.record)
        return running.finish(output)

    @_uncompiled
    def _forget_inputs(self, _module: nn.Module, _args: tuple[Any, ...], _output: object) -> None:
        """Drop what the multimodal model was called with, also when it failed before the language model ran."""
        self._arguments = {}

    def _continued(self, cache: Cache, seen: int, tokens: Tensor, attention_mask: object) -> Decode | None:
        """Return the step that goes on with a pruned cache, or None if the cache is none such."""
        if not seen:
            # It is new, or was reset.
            self._memories.pop(cache, None)
            return None
        memory = self._memories.get(cache)
        if memory is None:
            check_unknown_cache(cache, len(self._plan.layers))
            return None
        batch, length = tokens.shape[:2]
        check_continuation(memory, seen, batch)
        memory = memory.for_batch(batch)
        real = unpadded(attention_mask, past=memory.real, length=length)
        return Decode(self._plan, memory, real, cache)

    def _replayed(self, arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Replay | None:
        """Return the run that this one continues, or a new one; None where a cache or gradients are in play."""
        if kwargs.get("use_cache") is not False or torch.is_grad_enabled():
            return None
        tokens, features = arguments["input_ids"], self._plan.family.features(arguments)
        continued = self._replay and self._replay.continued(tokens, features)
        return continued or Replay(tokens, features, None, tokens.shape[1])

    def _visual_tokens(self, arguments: Mapping[str, Any]) -> Tensor | None:
        """Return which tokens of the call stand for visual features, shape (B, T), or None where none does."""
        if not arguments:
            # The language model was called by itself, with text.
            return None
        tokens = check_ids(arguments.get("input_ids"))
        ids = self._plan.family.token_ids(self._model_config, arguments)
        if not ids:
            return None
        visual = torch.isin(tokens, torch.tensor(ids, dtype=tokens.dtype, device=tokens.device))
        return visual if bool(visual.any()) else None

"""The hooks of one session on one model, from attaching to detaching."""

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.utils.generic import ModelOutput

from iwp_transformers.callers import drafted_tokens, running_generation
from iwp_transformers.checkpointing import shorten_outside, unwrap_checkpointing
from iwp_transformers.decode import check_step, restore_attentions, step_mask
from iwp_transformers.deepstack import take_away
from iwp_transformers.forwards import Forward, ThreadState
from iwp_transformers.hooks import Hook, argument_names
from iwp_transformers.later_turns import EarlierTokens
from iwp_transformers.masks import real_tokens
from iwp_transformers.plan import PruningPlan
from iwp_transformers.prefill import Costs, Prefill
from iwp_transformers.prompt import prompt_of
from iwp_transformers.pruned_cache import Lease, pruned_layer
from iwp_transformers.refusals import check_ids, check_length, check_prefill
from iwp_transformers.replay import Replay
from iwp_transformers.tower import TowerWatch
from iwp_transformers.tower_view import tower_reader
from iwp_transformers.versions import cache_in, miss_mask

if TYPE_CHECKING:
    from iwp_transformers.session import PruningSession

__all__ = ["Attachment"]

P = ParamSpec("P")
R = TypeVar("R")
Changed = tuple[tuple[Any, ...], dict[str, Any]] | None


def _uncompiled(method: Callable[P, R]) -> Callable[P, R]:
    """Keep what only prefills do out of compiled graphs."""
    return cast("Callable[P, R]", torch.compiler.disable(method))  # type: ignore[no-untyped-call]  # untyped in torch


class Attachment:
    """The hooks of one session on one model.

    Steps on a cache need nothing but the cache, and can be compiled. What a prefill needs stays with the thread that
    runs it, so that any number of threads may use the model at once.

    Parameters
    ----------
    plan : PruningPlan
        What to do.
    session : weak reference to PruningSession
        Whose records are written; a session that is gone is not brought back.
    lease : Lease
        Handed to the caches that are pruned.
    costs : dict
        What is known of the layers' costs.
    """

    def __init__(self, plan: PruningPlan, session: "weakref.ref[PruningSession]", lease: Lease, costs: Costs) -> None:
        self._plan, self._session, self._lease, self._costs = plan, session, lease, costs
        self._names = argument_names(plan.inner)
        self._layer_names = [argument_names(layer) for layer in plan.layers]
        self._bringers, self._kinds = plan.family.bringers, plan.kinds
        self._thread = ThreadState()
        self._watch = None if plan.tower is None else TowerWatch(plan.tower, plan.family.media, self._thread)
        self._changed = threading.Condition()
        self._running = 0
        # Read by every step, also by compiled ones: whether any thread is in the middle of a prefill.
        self._busy = False
        self._handles = self._attach()
        # What was compiled before does not look for new hooks.
        torch.compiler.reset()

    def _attach(self) -> list[RemovableHandle]:
        plan = self._plan
        handles = [
            Hook(self._enter_model).before(plan.inner),
            Hook(self._enter_text).before(plan.text),
            Hook(self._leave_text).after(plan.text),
            Hook(self._leave_model).after(plan.inner),
        ]
        if plan.model is not plan.inner:
            handles += [Hook(self._see_labels).before(plan.model), Hook(self._forget_labels).after(plan.model)]
        for index, layer in enumerate(plan.layers):
            handles.append(Hook(self._enter_layer, index).before(layer))
        return handles if self._watch is None else handles + self._watch.attach()

    def detach(self) -> None:
        """Take every hook off the model, once the prefills of other threads are done; harmless when repeated."""
        self._lease.open = False
        mine = len(self._thread.forwards)
        with self._changed:
            self._changed.wait_for(lambda: self._running <= mine)
        for handle in self._handles:
            handle.remove()
        unwrap_checkpointing(self._plan.layers)

    # What the model with a head is called with.

    def _see_labels(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("labels") is not None:
            self._keep_labels(kwargs["labels"])

    def _forget_labels(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        if kwargs.get("labels") is not None:
            self._keep_labels(None)

    @_uncompiled
    def _keep_labels(self, labels: Tensor | None) -> None:
        self._thread.labels = labels

    # The multimodal model.

    def _enter_model(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a forward that brings visual features; one that brings none is left alone."""
        brings = any(kwargs.get(name) is not None for name in self._bringers)
        if brings or args or self._busy or kwargs.get("input_ids") is None:
            self._begin(args, kwargs)

    def _leave_model(self, _module: nn.Module, _args: tuple[Any, ...], _kwargs: Any, output: Any) -> None:
        if self._busy:
            self._end(output)

    @_uncompiled
    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = {**self._by_position(args), **kwargs}
        session = self._session()
        brings = any(arguments.get(name) is not None for name in self._bringers)
        if self._lease.open and session is not None:
            check_ids(arguments.get("input_ids"))
        pruning = brings and self._lease.open and session is not None
        if pruning or self._thread.forwards:
            self._thread.forwards.append(Forward(session, arguments) if pruning and session else None)
            with self._changed:
                self._running += 1
                self._busy = True

    @_uncompiled
    def _end(self, output: Any) -> None:
        if not self._thread.forwards:
            return
        forward = self._thread.forwards.pop()
        with self._changed:
            self._running -= 1
            self._busy = self._running > 0
            self._changed.notify_all()
        if forward is not None and output is not None and forward.prefill is not None and not forward.finished:
            msg = "the decoder returned without its hooks being called: this prefill was not pruned; please report it"
            raise RuntimeError(msg)

    def _by_position(self, args: tuple[Any, ...]) -> dict[str, Any]:
        """Return positional arguments of the multimodal model by their names.

        Raises
        ------
        NotImplementedError
            If the model's forward does not name them.
        """
        if len(args) > len(self._names) or {"args"} & set(self._names[: len(args)]):
            msg = (
                f"{type(self._plan.inner).__name__}.forward was given {len(args)} arguments by position that it does"
                " not name: which of them are ids and features is not known; pass them by name"
            )
            raise NotImplementedError(msg)
        return dict(zip(self._names, args, strict=False))

    # Its decoder.

    def _enter_text(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        """Decide whether this forward is a pruning prefill, a step on a pruned cache, or neither."""
        if self._busy:
            changed = self._prepare(args, kwargs)
            if changed is not None:
                return changed
        states = kwargs.get("inputs_embeds")
        states = kwargs.get("input_ids", *args[:1]) if states is None else states
        cache = cache_in(kwargs)
        check_step(cache, states.shape[0])
        if cache is not None and self._plan.longest is not None:
            check_length(self._plan, int(cache.get_seq_length()) + states.shape[1])
        return None

    @_uncompiled
    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        forward = self._forward()
        if forward is None:
            return None
        plan, arguments = self._plan, forward.arguments
        tokens = arguments["input_ids"]
        placeholders = plan.family.placeholders(plan.model_config, arguments, plan.named)
        modalities = {name: tokens == token for name, token in placeholders.items()}
        if not any(bool(where.any()) for where in modalities.values()):
            return None
        check_prefill(plan, kwargs, tokens.shape[1])
        shorten_outside(plan.layers, self._enter_checkpoint)
        check_step(cache_in(kwargs), tokens.shape[0])
        earlier = EarlierTokens(cache_in(kwargs), tokens.shape[1])
        given = arguments.get("attention_mask")
        padding = given if isinstance(given, Tensor) and given.ndim == 2 else kwargs.get("attention_mask")  # noqa: PLR2004 - of shape (B, T)
        real = real_tokens(padding, (tokens.shape[0], tokens.shape[1]), tokens.device, earlier.count)
        if kwargs.get("use_cache") is False and not torch.is_grad_enabled():
            forward.generation = running_generation(plan.model)
        replay = self._thread.replay if forward.generation is not None else None
        chosen = () if replay is None else replay.kept_for(forward.generation, tokens)
        deep, others = take_away(kwargs, len(plan.layers))
        tower = (
            None if self._watch is None else tower_reader(self._watch, plan.model_config, arguments, forward.encoded)
        )
        prompt = prompt_of(modalities, real, self._thread.labels, drafted_tokens(plan.model))
        forward.prefill = Prefill(plan, prompt, arguments, chosen, self._costs, deep, earlier, tower)
        return args, others

    def _leave_text(
        self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: ModelOutput | None
    ) -> ModelOutput | None:
        """Put what the decoder returns back at full length; after an exception `output` is None."""
        if self._busy:
            restored = self._finish(output)
            if restored is not None:
                return restored
        if output is not None and isinstance(output, dict) and getattr(output, "attentions", None):
            cache = cache_in(kwargs)
            if cache is not None:
                restore_attentions(cache, output, self._plan.kinds)
        return output

    @_uncompiled
    def _finish(self, output: ModelOutput | None) -> ModelOutput | None:
        forward = self._forward()
        if forward is None or forward.prefill is None or forward.finished or output is None:
            return None
        prefill, forward.finished = forward.prefill, True
        if not isinstance(output, dict) or "last_hidden_state" not in output:
            msg = f"the decoder returned a {type(output).__name__} without `last_hidden_state`: it cannot be restored"
            raise RuntimeError(msg)
        unseen = cache_in(output)
        if unseen is not None and unseen is not prefill.cache and unseen.get_seq_length():
            msg = (
                "the prefill filled a cache that its layers were not seen to be called with, so that what was pruned is"
                " not known to it; this version of Transformers hands caches over in a new way"
            )
            raise RuntimeError(msg)
        if not prefill.replayed:
            forward.session.records.append(prefill.record())
            if forward.generation is not None:
                tokens = forward.arguments["input_ids"]
                self._thread.replay = Replay.of(forward.generation, tokens, prefill.kept)
        restored = prefill.finish(output)
        prefill.mark_cache(self._lease)
        return restored

    # Its layers.

    def _enter_layer(self, index: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        """Hand a prefill what a layer is about to get, or a step on a pruned cache its mask."""
        if self._busy:
            changed = self._enter_prefill(index, args, kwargs)
            if changed is not None:
                return changed
        cache = cache_in(kwargs)
        part = pruned_layer(cache, index)
        if cache is None or part is None or part.rows is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        if len(args) > 1:
            args, kwargs = args[:1], {**dict(zip(self._layer_names[index][1:], args[1:], strict=False)), **kwargs}
        if "attention_mask" not in kwargs:
            miss_mask(index)
        mask = step_mask(self._plan.config, cache, index, hidden, kwargs["attention_mask"], self._kinds)
        return args, {**kwargs, "attention_mask": mask}

    @_uncompiled
    def _enter_prefill(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        forward = self._forward()
        if forward is None or forward.prefill is None or forward.finished:
            return None
        if forward.entered == index:
            # This is the call that is checkpointed; its arguments are shortened already.
            return None
        names = self._layer_names[index]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        hidden = arguments.pop(names[0])
        if "attention_mask" in names and "attention_mask" not in arguments:
            miss_mask(index)
        hidden, changed = forward.prefill.enter(index, hidden, arguments)
        return (hidden,), changed

    def _enter_checkpoint(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        changed = self._enter_prefill(index, args, kwargs)
        forward = self._forward()
        if changed is not None and forward is not None:
            forward.entered = index
        return changed

    def _forward(self) -> Forward | None:
        return self._thread.forwards[-1] if self._thread.forwards else None

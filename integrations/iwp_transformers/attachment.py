"""The hooks of one session on one model, from attaching to detaching."""

import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.utils.generic import ModelOutput

from iwp_transformers.callers import arguments_past_hooks, calls_of, running_elsewhere
from iwp_transformers.checkpointing import shorten_outside, unwrap_checkpointing
from iwp_transformers.chunks import running_chunk
from iwp_transformers.decode import check_step, restore_attentions, step_mask
from iwp_transformers.forwards import Forward, ThreadState
from iwp_transformers.hooks import Hook, argument_names, named_arguments
from iwp_transformers.plan import PruningPlan
from iwp_transformers.prefill import Costs
from iwp_transformers.preparation import Preparation
from iwp_transformers.pruned_cache import Lease, pruned_layer
from iwp_transformers.refusals import check_ids, check_length
from iwp_transformers.replay import Replay
from iwp_transformers.tower import TowerWatch
from iwp_transformers.versions import cache_in, miss_mask

if TYPE_CHECKING:
    from iwp_transformers.session import PruningSession

__all__ = ["Attachment"]

P = ParamSpec("P")
R = TypeVar("R")
# Seconds until close() looks whether the prefills that it waits for are still there.
PATIENCE = 0.5

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
        self._plan, self._session, self._lease = plan, session, lease
        self._names = argument_names(plan.inner)
        self._layer_names = [argument_names(layer) for layer in plan.layers]
        self._bringers, self._kinds = plan.family.bringers, plan.kinds
        self._thread = ThreadState()
        self._watch = None if plan.tower is None else TowerWatch(plan.tower, plan.family.media, self._thread)
        self._preparation = Preparation(plan, self._thread, costs, self._watch, self._count)
        self._changed = threading.Condition()
        self._running = self._held = 0
        # Read by every step, also by compiled ones: whether any thread is in the middle of a prefill, in chunks or not.
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
        for index, layer in enumerate(plan.layers):
            handles.append(Hook(self._enter_layer, index).before(layer))
        return handles if self._watch is None else handles + self._watch.attach()

    def detach(self) -> None:
        """Take every hook off the model, once the prefills of other threads are done; harmless when repeated."""
        self._lease.open = False
        mine = len(self._thread.forwards)
        with self._changed:
            while self._running > mine:
                # No hook is called behind a forward that Ctrl-C broke off: after a while, the threads are looked at.
                if not self._changed.wait(PATIENCE) and not running_elsewhere(self._plan.inner):
                    break
        for handle in self._handles:
            handle.remove()
        unwrap_checkpointing(self._plan.layers)

    # The multimodal model.

    def _enter_model(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a forward that brings visual features; one that brings none is left alone."""
        brings = any(kwargs.get(name) is not None for name in self._bringers)
        if brings or args or self._busy or kwargs.get("input_ids") is None or self._in_chunks():
            self._begin(args, kwargs)

    def _in_chunks(self) -> bool:
        """Tell whether a prompt comes in chunks, of which some bring no features; a compiled graph cannot ask."""
        return not torch.compiler.is_compiling() and running_chunk(self._plan.model) is not None

    def _leave_model(self, _module: nn.Module, _args: tuple[Any, ...], _kwargs: Any, output: Any) -> None:
        if self._busy:
            self._end(output)

    @_uncompiled
    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = {**named_arguments(self._plan.inner, self._names, args), **kwargs}
        session, chunk = self._session(), running_chunk(self._plan.model)
        brings = any(arguments.get(name) is not None for name in self._bringers)
        if chunk is not None:
            brings = chunk.brings(self._bringers)
        if self._lease.open and session is not None:
            check_ids(arguments.get("input_ids"))
        self._forget_broken_off()
        pruning = brings and self._lease.open and session is not None
        if pruning or self._thread.forwards:
            self._thread.forwards.append(Forward(session, arguments, chunk) if pruning and session else None)
            self._count(running=1)

    def _forget_broken_off(self) -> None:
        """Forget forwards of this thread that Ctrl-C broke off: torch calls the hooks behind them for errors alone."""
        forwards = self._thread.forwards
        around = calls_of(self._plan.inner, sys._getframe()) - 1 if forwards else 0
        for _ in range(len(forwards) - max(around, 0)):
            forwards.pop()
            self._count(running=-1)

    @_uncompiled
    def _end(self, output: Any) -> None:
        if not self._thread.forwards:
            return
        forward = self._thread.forwards.pop()
        if forward is not None and forward.held is not None and (output is None or forward.finished):
            forward.held.forget_in(self._thread.held)
        self._count(running=-1)
        if forward is not None and output is not None and forward.prefill is not None and not forward.finished:
            msg = "the decoder returned without its hooks being called: this prefill was not pruned; please report it"
            raise RuntimeError(msg)

    def _count(self, held: int = 0, *, running: int = 0) -> None:
        with self._changed:
            self._running += running
            self._held += held
            self._busy = self._running > 0 or self._held > 0
            self._changed.notify_all()

    # Its decoder.

    def _enter_text(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        """Decide whether this forward is a pruning prefill, a step on a pruned cache, or neither."""
        if self._busy:
            changed = self._prepare(args, kwargs)
            if changed is not None:
                return changed
        if not torch.compiler.is_compiling():
            self._check_called()
        states = kwargs.get("inputs_embeds")
        states = kwargs.get("input_ids", *args[:1]) if states is None else states
        cache = cache_in(kwargs)
        check_step(cache, states.shape[0])
        if cache is not None and self._plan.longest is not None:
            check_length(self._plan, int(cache.get_seq_length()) + states.shape[1])
        return None

    def _check_called(self) -> None:
        """Raise if a forward with features came to the decoder without the hook that sees them."""
        given = {} if self._thread.forwards else arguments_past_hooks(self._plan.inner)
        brought = map(given.get, self._bringers)
        if self._lease.open and any(isinstance(part, torch.Tensor) or part for part in brought):
            kind = type(self._plan.inner).__name__
            msg = (
                f"{kind}.forward was called itself, past the hooks of a call, so that this forward could not be pruned;"
                " call the model (`model(...)`)"
            )
            raise NotImplementedError(msg)

    @_uncompiled
    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        forward = self._forward()
        others = None if forward is None else self._preparation.prepare(forward, kwargs)
        if others is None:
            return None
        shorten_outside(self._plan.layers, self._enter_checkpoint)
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
        running = None if forward is None else forward.running
        if forward is None or running is None or output is None:
            return None
        if not isinstance(output, dict) or "last_hidden_state" not in output:
            msg = f"the decoder returned a {type(output).__name__} without `last_hidden_state`: it cannot be restored"
            raise RuntimeError(msg)
        if forward.prefill is None:
            return running.finish(output)
        prefill, forward.finished = forward.prefill, True
        prefill.check_complete()
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
        restored = running.finish(output)
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
        running = None if forward is None else forward.running
        if forward is None or running is None:
            return None
        if forward.entered == index:
            # This is the call that is checkpointed; its arguments are shortened already.
            return None
        names = self._layer_names[index]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        hidden = arguments.pop(names[0])
        if "attention_mask" in names and "attention_mask" not in arguments:
            miss_mask(index)
        hidden, changed = running.enter(index, hidden, arguments)
        return (hidden,), changed

    def _enter_checkpoint(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        changed = self._enter_prefill(index, args, kwargs)
        forward = self._forward()
        if changed is not None and forward is not None:
            forward.entered = index
        return changed

    def _forward(self) -> Forward | None:
        return self._thread.forwards[-1] if self._thread.forwards else None

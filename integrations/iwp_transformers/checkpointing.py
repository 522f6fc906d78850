"""Gradient checkpointing: what a layer gets is shortened before it is checkpointed, so that it runs again with that.

Some versions of Transformers checkpoint a layer's call, hooks included: the backward pass would call the hooks again,
from whatever thread, when their forward is long over. There a layer's own checkpointing function is wrapped while a
session is open, and hands on arguments that are shortened already. Others checkpoint `forward`, behind the hooks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["check_checkpointing", "shorten_outside", "unwrap_checkpointing"]

FUNCTION = "_gradient_checkpointing_func"
# Hooks of a layer are part of what is checkpointed.
AROUND_HOOKS = "__call__" in vars(GradientCheckpointingLayer)

Enter = Callable[[int, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]


class OutsideCheckpoint:
    """Stands for the checkpointing function of one layer; a copy or a pickle of it is that function again.

    Parameters
    ----------
    function : callable
        The function that the layer had.
    enter : callable
        Arguments by position and by name to those that the layer gets instead; None where nothing changes.
    """

    def __init__(self, function: Callable[..., Any], enter: Callable[..., Any]) -> None:
        self.function, self._enter = function, enter

    def __call__(self, run: Any, *args: Any) -> Any:
        """Checkpoint a call with what it gets instead.

        Raises
        ------
        RuntimeError
            If it is not known what the layer is called with.
        """
        if not isinstance(run, partial):
            msg = "a layer is checkpointed with arguments in a new way: this version of Transformers is not known"
            raise RuntimeError(msg)
        changed = self._enter(args, dict(run.keywords))
        if changed is not None:
            args, run = changed[0], partial(run.func, *run.args, **changed[1])
        return self.function(run, *args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Callable[..., Any]]]:
        """Copy and pickle without the session."""
        return partial, (self.function,)


def check_checkpointing(text: nn.Module, layers: Sequence[nn.Module], cache: Cache | None) -> None:
    """Raise if checkpointed layers could not be pruned exactly.

    Parameters
    ----------
    text : torch.nn.Module
        The decoder.
    layers : sequence of torch.nn.Module
        Its layers.
    cache : transformers.Cache or None
        The cache of the forward.

    Raises
    ------
    NotImplementedError
        If the decoder checkpoints in a way of its own, or goes on with a cache.
    """
    if not any(part.training and getattr(part, "gradient_checkpointing", False) for part in (text, *layers)):
        return
    if not all(isinstance(layer, GradientCheckpointingLayer) for layer in layers):
        msg = (
            f"gradient checkpointing of a {type(text).__name__} is not that of Transformers' layers: they would run"
            " again without what was removed being known; switch it off while the session is open"
        )
        raise NotImplementedError(msg)
    if torch.is_grad_enabled() and cache is not None and int(cache.get_seq_length()):
        msg = "layers with gradient checkpointing take no cache, but this one holds tokens; pass the whole prompt"
        raise NotImplementedError(msg)


def shorten_outside(layers: Sequence[nn.Module], enter: Enter) -> None:
    """Let layers that checkpoint their hooks shorten what they get before that; harmless when repeated."""
    for index, layer in enumerate(layers if AROUND_HOOKS else ()):
        function = getattr(layer, FUNCTION, None)
        if function is not None and not isinstance(function, OutsideCheckpoint):
            setattr(layer, FUNCTION, OutsideCheckpoint(function, partial(enter, index)))


def unwrap_checkpointing(layers: Sequence[nn.Module]) -> None:
    """Give layers their own checkpointing functions back."""
    for layer in layers:
        function = getattr(layer, FUNCTION, None)
        if isinstance(function, OutsideCheckpoint):
            setattr(layer, FUNCTION, function.function)

"""What a decoder layer hands to its attention function in an unpruned forward, read there and nowhere else."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from tests.models.factory import decoder_of


@dataclass(frozen=True, eq=False)
class Received:
    """Inputs of a layer, shape (B, T, E), and what its attention receives, shape (B, heads, T, channels)."""

    hidden: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor


class _Handed(Exception):
    """The attention function was called with these arguments; nothing after it has to run."""


def received(model: Any, batch: Mapping[str, Any], layer: int, *, rotated: bool = True) -> Received | None:
    """Return what the attention of a layer receives; None where the layer calls no attention function.

    Without rotation, the layer is given the rotation by nothing. That leaves None too where it is handed none at all,
    or one in a form that this reading does not know.
    """
    decoder = decoder_of(model)
    implementation = decoder.config._attn_implementation
    seen: list[Tensor] = []
    with ExitStack() as stack:

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            seen.append(args[0] if args else kwargs["hidden_states"])
            if not rotated:
                kwargs = {**kwargs, "position_embeddings": _no_rotation(kwargs.get("position_embeddings"))}
            stack.enter_context(patch.dict(AttentionInterface._global_mapping, {implementation: _hand_over}))
            return args, kwargs

        entered = decoder.layers[layer].register_forward_pre_hook(enter, with_kwargs=True)
        left = decoder.layers[layer].register_forward_hook(_stop)
        stack.callback(entered.remove)
        stack.callback(left.remove)
        try:
            with torch.no_grad():
                model(**batch)
        except _Handed as handed:
            return Received(seen[0], *handed.args[:3]) if handed.args else None
    return None


def _hand_over(_module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_args: Any, **_kwargs: Any) -> Any:
    raise _Handed(query, key, value)


def _stop(*_arguments: Any) -> None:
    """Leave the forward behind a layer that called no attention function."""
    raise _Handed


def _no_rotation(rotation: Any) -> Any:
    if isinstance(rotation, Tensor) and rotation.is_complex():
        return torch.ones_like(rotation)
    if isinstance(rotation, (tuple, list)) and len(rotation) == 2:
        return torch.ones_like(rotation[0]), torch.zeros_like(rotation[1])
    raise _Handed

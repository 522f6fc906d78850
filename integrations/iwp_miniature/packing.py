"""Many questions about one picture in one pass: each sees the picture and itself, none sees another.

The picture is a prefix that all questions share; every question has a slot of the same length after it. Positions of
every slot start anew after the prefix, so a packed question gets the states it would get alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

__all__ = ["Packing", "packed"]

NAME = "packed_questions"


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How a packed sequence is laid out.

    Parameters
    ----------
    prefix : int
        Tokens before the slots.
    visual : slice
        Where the picture lies in the prefix.
    slots, length : int
        Number of questions and tokens of each.
    blind : int
        Decoder layers, from 0, in which the slots do not attend to the picture.
    """

    prefix: int
    visual: slice
    slots: int
    length: int
    blind: int = 0


_packing: ContextVar[Packing] = ContextVar("packing")


@contextmanager
def packed(model: Any, packing: Packing) -> Iterator[dict[str, None]]:
    """Let a model's decoder attend as a packing says; gives the `attention_mask` to call it with."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    model.set_attn_implementation({"text_config": NAME})
    token = _packing.set(packing)
    try:
        yield {"full_attention": None}
    finally:
        _packing.reset(token)
        model.set_attn_implementation({"text_config": before})


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: None, *, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attend, in the dtype of autocast, on the layout of the packing; shapes (B, heads, T, D)."""
    layout, given = _packing.get(), query.dtype
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else given
    with torch.autocast(device, enabled=False):
        query, key, value = (scaling * query).to(dtype), key.to(dtype), value.to(dtype)
        (prefix_q, slot_q), (prefix_k, slot_k), (prefix_v, slot_v) = (
            (states[:, :, : layout.prefix], states[:, :, layout.prefix :]) for states in (query, key, value)
        )
        rows = [_prefix_rows(prefix_q, prefix_k, prefix_v)]
        if layout.slots:
            blind = layout.visual if module.layer_idx < layout.blind else None
            rows.append(_slot_rows(layout, slot_q, (prefix_k, prefix_v), (slot_k, slot_v), blind))
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous().to(given), None


def _grouped(query: Tensor, heads: int) -> Tensor:
    """Lay the query heads that share a key/value head one after another: (B, H, group * T, D)."""
    batch, _, _, width = query.shape
    return query.reshape(batch, heads, -1, width)


def _prefix_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of the prefix, shape of `query`."""
    count = query.shape[2]
    scores = (_grouped(query, key.shape[1]) @ key.mT).unflatten(2, (-1, count))  # type: ignore[no-untyped-call]
    future = torch.ones(count, count, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.masked_fill_(future, -torch.inf).softmax(dim=-1)
    rows: Tensor = (weights.flatten(2, 3) @ value).reshape(query.shape)
    return rows


def _slot_rows(
    layout: Packing, query: Tensor, prefix: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], blind: slice | None
) -> Tensor:
    """Attention of the slots to the prefix and, causally, each to itself; shape of `query`."""
    heads, length = prefix[0].shape[1], layout.length
    to_prefix = _grouped(query, heads) @ prefix[0].mT
    if blind is not None:
        to_prefix[..., blind] = -torch.inf
    batch, _, _, width = query.shape
    # (B, H, group, slots, length, D) against (B, H, 1, slots, length, D)
    split_q = query.reshape(batch, heads, -1, layout.slots, length, width)
    own_k, own_v = (states.reshape(batch, heads, 1, layout.slots, length, width) for states in own)
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    to_own = (split_q @ own_k.mT).masked_fill(future, -torch.inf)
    weights = torch.cat([to_prefix, to_own.flatten(2, 4)], dim=-1).softmax(dim=-1)
    from_prefix = weights[..., : layout.prefix] @ prefix[1]
    own_weights = weights[..., layout.prefix :].reshape(to_own.shape)
    return from_prefix.reshape(query.shape) + (own_weights @ own_v).reshape(query.shape)


AttentionInterface.register(NAME, _attend)

"""The attention that each row of a tower's layer receives, a block of queries at a time."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from iwp_transformers.attention import AttentionInputs, attention_inputs
from iwp_transformers.tower import LayerCall

__all__ = ["received_attention", "tower_inputs"]

# Logits that are held at once.
BLOCK = 1 << 24


def tower_inputs(layer: nn.Module, call: LayerCall) -> tuple[AttentionInputs, Tensor | None]:
    """Return what a tower's layer hands to its attention function, and where it cuts the rows.

    Parameters
    ----------
    layer : torch.nn.Module
        The layer.
    call : LayerCall
        What it was called with.

    Returns
    -------
    AttentionInputs
        Of shape (images or tiles, Hq, rows, D); or (1, Hq, rows, D) where images stand behind each other.
    torch.Tensor or None
        Where each part of the rows begins within which they attend to each other, and the end; None for one part.

    Raises
    ------
    NotImplementedError
        If the layer hides rows from each other by a mask.
    """
    arguments: Mapping[str, Any] = call.arguments
    if arguments.get("attention_mask") is not None:
        msg = f"the vision tower's {type(layer).__name__} is called with a mask, within which attention is not read"
        raise NotImplementedError(msg)
    cuts = arguments.get("cu_seqlens")
    if cuts is not None:
        # A single part, so that the attention function is called once, with all rows.
        arguments = {**arguments, "cu_seqlens": cuts[[0, -1]]}
    return attention_inputs(layer, call.hidden, arguments), cuts


def received_attention(
    inputs: AttentionInputs, cuts: Tensor | None, *, class_token: bool, split_heads: bool = True
) -> Tensor:
    """Return how much attention each row receives: from the class token, or else the mean over all rows.

    Parameters
    ----------
    inputs : AttentionInputs
        Queries and keys, shape (images or tiles, Hq, rows, D).
    cuts : torch.Tensor or None
        Where the parts begin that attend to themselves alone.
    class_token : bool
        Whether row 0 is a class token, whose attention is returned.
    split_heads : bool, default True
        By head; or by the product of whole queries and keys, over the root of the whole width.

    Returns
    -------
    torch.Tensor
        Shape (images or tiles, rows, Hq), or one in place of Hq; float32, or float64 where the inputs are.

    Notes
    -----
    Time O(rows²), memory O(rows).
    """
    queries, keys, scaling = _wide(inputs.queries), _wide(inputs.keys), inputs.scaling
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    if not split_heads:
        queries, keys = (part.transpose(1, 2).flatten(2)[:, None] for part in (queries, keys))
        scaling = queries.shape[-1] ** -0.5
    if class_token:
        return (queries[:, :, :1] @ keys.transpose(2, 3) * scaling).softmax(-1)[:, :, 0].transpose(1, 2)
    edges = [0, keys.shape[2]] if cuts is None else cuts.tolist()
    parts = [slice(start, stop) for start, stop in pairwise(edges)]
    means = [_column_mean(queries[:, :, part], keys[:, :, part] * scaling) for part in parts]
    return torch.cat(means, dim=2).transpose(1, 2)


def _column_mean(queries: Tensor, keys: Tensor) -> Tensor:
    rows = keys.shape[2]
    step = max(1, BLOCK // (keys[..., 0].numel()))
    total = torch.zeros_like(keys[..., 0])
    for start in range(0, queries.shape[2], step):
        block = queries[:, :, start : start + step]
        total += (block @ keys.transpose(2, 3)).softmax(-1).sum(2)
    return total / rows


def _wide(part: Tensor) -> Tensor:
    return part if part.dtype == torch.float64 else part.float()

"""Run the decoder's first layers over one prompt with vLLM's own weights, outside of its KV cache."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from iwp_vllm.seen import Heads, Seen

__all__ = ["look"]


def look(
    layers: Sequence[Any], hidden: Tensor, positions: Tensor, visual: slice, *, depth: int, source: bytes = b""
) -> Seen:
    """Run the layers before `depth` over a prompt, and return what enters layer `depth`.

    Parameters
    ----------
    layers : sequence of modules
        Qwen2 layers of vLLM.
    hidden : torch.Tensor
        Shape (T, E): embeddings of the prompt.
    positions : torch.Tensor
        Shape (3, T), equal on all axes where the model counts in one row.
    visual : slice
        Rows of the image.
    depth : int
        Number of layers that run.
    source : bytes
        Identifies the image.
    """
    before: Heads | None = None
    for layer in layers[:depth]:
        before = _heads(layer, hidden, positions)
        mixed = scaled_dot_product_attention(
            before.rotated_queries,
            before.rotated_keys,
            before.values,
            is_causal=True,
            scale=layer.self_attn.scaling,
            enable_gqa=True,
        )
        # vLLM's layers return their bias apart, and its norms may write into what they are given.
        hidden = hidden + layer.self_attn.o_proj(mixed.transpose(0, 1).flatten(1))[0]
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden.clone()))
    return Seen(
        hidden=hidden,
        visual=visual,
        heads=lambda: _heads(layers[depth], hidden, positions),
        attention_before=lambda: _last_row(before, layers[depth - 1].self_attn.scaling),
        source=source,
    )


def _heads(layer: Any, hidden: Tensor, positions: Tensor) -> Heads:
    attention = layer.self_attn
    projected, _ = attention.qkv_proj(layer.input_layernorm(hidden.clone()))
    queries, keys, values = projected.split([attention.q_size, attention.kv_size, attention.kv_size], dim=-1)
    rotated_queries, rotated_keys = attention.rotary_emb(positions, queries.clone(), keys.clone())

    def by_head(rows: Tensor) -> Tensor:
        return rows.reshape(len(rows), -1, attention.head_dim).transpose(0, 1)

    return Heads(
        queries=by_head(queries),
        rotated_queries=by_head(rotated_queries),
        keys=by_head(keys),
        rotated_keys=by_head(rotated_keys),
        values=by_head(values),
    )


def _last_row(heads: Heads | None, scaling: float) -> Tensor:
    """Return the attention of the last token, which sees all tokens, shape (Hq, T).

    Raises
    ------
    ValueError
        If there is no layer before.
    """
    if heads is None:
        msg = "`layer` is 0, expected at least 1 with a rule that reads the attention of the layer before"
        raise ValueError(msg)
    shared = heads.rotated_queries.shape[0] // heads.rotated_keys.shape[0]
    keys = heads.rotated_keys.repeat_interleave(shared, dim=0)
    logits = (heads.rotated_queries[:, -1:] @ keys.transpose(1, 2))[:, 0] * scaling
    return torch.softmax(logits.float(), dim=-1).to(logits.dtype)

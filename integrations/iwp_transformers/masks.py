"""Attention masks: read the padding out of whatever form it came in, and build those of the shortened layers."""

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, create_causal_mask

__all__ = ["causal_mask", "unpadded"]

# Dimensions of a mask: (B, K), or (B, 1, Q, K).
FLAT, SQUARE = 2, 4


def unpadded(attention_mask: object, *, past: Tensor, length: int) -> Tensor:
    """Return which of the newest tokens are no padding.

    Parameters
    ----------
    attention_mask : torch.Tensor, mapping of str to torch.Tensor, or None
        What the language model was given: a 2-D mask; the 4-D one, or those by layer type, that `generate` prepares
        for static caches; or nothing, for no padding.
    past : torch.Tensor
        Shape (B, S), bool: which of the tokens seen before are no padding.
    length : int
        Number of new tokens Q.

    Returns
    -------
    torch.Tensor
        Shape (B, Q), bool, on the device of `past`.

    Raises
    ------
    NotImplementedError
        If the mask forbids anything but padding and the future.
    """
    mask = attention_mask["full_attention"] if isinstance(attention_mask, dict) else attention_mask
    if mask is None:
        return past.new_ones(past.shape[0], length)
    if not isinstance(mask, Tensor) or mask.ndim not in (FLAT, SQUARE):
        msg = f"`attention_mask` is a {type(mask).__name__}, pruning reads padding from tensors of 2 or 4 dimensions"
        raise NotImplementedError(msg)
    if mask.ndim == FLAT:
        return mask[:, -length:].to(device=past.device, dtype=torch.bool)
    seen = past.shape[1]
    allowed = mask[..., : seen + length].to(past.device)
    allowed = allowed if allowed.dtype == torch.bool else allowed == 0
    # The newest token may look at all before it but padding, so the last row of the square is the padding.
    real = allowed[:, 0, -1, seen:].expand(past.shape[0], -1)
    causal = past.new_ones(length, seen + length).tril(seen)
    if not bool((allowed == (causal & torch.cat((past, real), dim=1)[:, None, None, :])).all()):
        msg = (
            "`attention_mask` has 4 dimensions and forbids more than padding and the future: pruning rebuilds the"
            " masks of the shortened layers from the padding alone; pass a 2-D mask"
        )
        raise NotImplementedError(msg)
    return real


def causal_mask(config: PreTrainedConfig, hidden: Tensor, visible: Tensor, cache: Cache | None, layer: int) -> object:
    """Build the causal mask of layers that hold fewer tokens than the first.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the language model.
    hidden : torch.Tensor
        Inputs of the layer, shape (B, Q, E).
    visible : torch.Tensor
        Shape (B, K), bool: which of the layer's tokens, the newest included, may be attended to.
    cache : transformers.Cache or None
        The cache, whose layer `layer` tells how many tokens came before.
    layer : int
        Layer of the cache to size the mask on.

    Returns
    -------
    object
        What the attention implementation of `config` takes.

    Raises
    ------
    NotImplementedError
        If the attention implementation has no mask function: it would attend to padding.
    """
    implementation = config._attn_implementation
    if implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
        msg = f"attention implementation {implementation!r} has no mask function in Transformers, pruning needs one"
        raise NotImplementedError(msg)
    return create_causal_mask(
        config=config,
        inputs_embeds=hidden,
        attention_mask=visible.to(hidden.device),
        past_key_values=cache,
        layer_idx=layer,
    )

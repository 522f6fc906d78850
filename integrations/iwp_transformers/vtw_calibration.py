"""Calibration of VTW: find the layer from which on a model needs no visual tokens."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iwp_core.methods import vtw_layer
from iwp_transformers.families import family_of
from iwp_transformers.session import prune_visual_tokens
from iwp_transformers.wrappers import unwrapped

__all__ = ["calibrated_vtw_layer"]


def calibrated_vtw_layer(
    model: nn.Module, samples: Iterable[Mapping[str, Any]], *, threshold: float = 0.003, first: int = 5
) -> int:
    """Find the first layer from which on all visual tokens can be dropped while the next token hardly changes.

    Parameters
    ----------
    model : torch.nn.Module
        A vision-language model with its head.
    samples : iterable of mapping
        Inputs of the model, each a batch of one or more prompts. The paper takes about 20 prompts.
    threshold : float, default 0.003
        Largest mean Kullback-Leibler divergence of the next token's distribution, in nats. The official code has 0.0005
        for LLaVA-1.5-13B and 0.0001 for LLaVA-1.6-7B.
    first : int, default 5
        First layer that is tried, at least 1.

    Returns
    -------
    int
        The `layer` for ``method="vtw"``.

    Raises
    ------
    TypeError
        If a number has the wrong type, or the model cannot be pruned.
    ValueError
        If there are no samples, a number is out of range, or no layer qualifies.

    Notes
    -----
    Each sample costs one forward, and one more for each layer that is tried.

    References
    ----------
    Lin et al.: Boosting Multimodal LLMs with Visual Tokens Withdrawal. AAAI 2025, arXiv 2405.05803.

    Examples
    --------
    >>> layer = calibrated_vtw_layer(model, samples)  # doctest: +SKIP
    >>> session = prune_visual_tokens(model, method="vtw", layer=layer)  # doctest: +SKIP
    """
    whole = unwrapped(model)
    depth = len(family_of(whole).stacks(whole)[1].layers)
    if isinstance(first, bool) or not isinstance(first, int) or not 1 <= first < depth:
        msg = f"`first` is {first!r}, expected an int from 1 to {depth - 1}: the model has {depth} layers"
        raise ValueError(msg)
    full, withdrawn = [], []
    for inputs in samples:
        full.append(_next_token(model, inputs))
        tried = []
        for layer in range(first, depth):
            with prune_visual_tokens(model, method="vtw", layer=layer):
                tried.append(_next_token(model, inputs))
        withdrawn.append(torch.stack(tried, dim=1))
    if not full:
        msg = "`samples` are none, expected at least one input of the model"
        raise ValueError(msg)
    return vtw_layer(torch.cat(full), torch.cat(withdrawn), threshold=threshold, first=first)


def _next_token(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """Return the logits behind each prompt, shape (B, V), float32."""
    with torch.no_grad():
        logits: Tensor = model(**inputs, use_cache=False).logits
    mask = inputs.get("attention_mask")
    real = torch.ones(logits.shape[:2]) if mask is None else mask
    last = (torch.arange(logits.shape[1], device=real.device) * (real != 0)).argmax(1).to(logits.device)
    return logits[torch.arange(len(logits), device=logits.device), last].float()

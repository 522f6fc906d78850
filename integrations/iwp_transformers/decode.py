"""Steps on a pruned cache: each layer's own mask, with the columns that it still has; torch.compile can trace it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig
from transformers.utils.generic import ModelOutput

from iwp_transformers.pruned_cache import PrunedRows, pruned_layer
from iwp_transformers.rows import restored_attention
from iwp_transformers.versions import causal_mask

__all__ = ["check_step", "restore_attentions", "step_mask"]


def check_step(cache: Cache | None, samples: int) -> None:
    """Raise unless a step fits the cache that it goes on with.

    Parameters
    ----------
    cache : transformers.Cache or None
        The cache of the step.
    samples : int
        Samples of the step.

    Raises
    ------
    NotImplementedError
        If the cache was pruned with another number of samples.
    """
    if cache is None:
        return
    for index in range(len(cache.layers)):
        part = pruned_layer(cache, index)
        if part is not None and part.rows is not None:
            if part.rows.index.shape[0] != samples:
                msg = (
                    f"the cache was pruned with {part.rows.index.shape[0]} samples and is used with {samples}: which"
                    " tokens it lacks is known by sample; repeat or select samples by the methods of the cache"
                )
                raise NotImplementedError(msg)
            return


def step_mask(config: PreTrainedConfig, cache: Cache, index: int, hidden: Tensor, mask: Any) -> Any:
    """Return the mask of a layer in a step on a pruned cache.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the decoder.
    cache : transformers.Cache
        The cache; its layer `index` lacks or hides tokens.
    index : int
        Number of the layer.
    hidden : torch.Tensor
        Its inputs, shape (B, Q, E).
    mask : object
        The mask that it was given, which knows nothing of what was dropped.
    """
    part: Any = cache.layers[index]
    rows: PrunedRows = part.rows
    if part.fresh:
        rows.forget_mask()
    keys = part.get_mask_sizes(hidden.shape[1])[0]
    build = partial(_built, config, cache, index, hidden)
    short = rows.step_mask(mask, keys, build, shortened=part.shortened)
    if index + 1 == len(cache.layers):
        rows.forget_mask()
    return short


def _built(config: PreTrainedConfig, cache: Cache, index: int, hidden: Tensor, visible: Tensor) -> object:
    return causal_mask(config, hidden, visible, cache, index)


def restore_attentions(cache: Cache, output: ModelOutput) -> None:
    """Put attention weights of a step, if they were asked for, back at full length.

    Parameters
    ----------
    cache : transformers.Cache
        The pruned cache.
    output : ModelOutput
        What the decoder returns; its attentions are replaced.
    """
    attentions = list(output["attentions"])
    # The first layer always holds all tokens.
    keys = attentions[0].shape[-1]
    for index, weights in enumerate(attentions):
        part = pruned_layer(cache, index)
        if part is not None and part.rows is not None and part.shortened:
            columns = part.rows.columns(weights.shape[-1])
            rows = torch.arange(weights.shape[2], device=columns.device).expand(columns.shape[0], -1)
            attentions[index] = restored_attention(weights, rows, columns, (weights.shape[2], keys))
    output["attentions"] = tuple(attentions)

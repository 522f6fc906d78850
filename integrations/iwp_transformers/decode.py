"""Steps on a pruned cache: each layer's own mask, with the columns that it still has; torch.compile can trace it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig
from transformers.utils.generic import ModelOutput

from iwp_transformers.layer_kinds import attending_layers
from iwp_transformers.pruned_cache import PrunedLayer, pruned_layer
from iwp_transformers.pruned_rows import PrunedRows
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


def step_mask(
    config: PreTrainedConfig, cache: Cache, index: int, hidden: Tensor, mask: Any, kinds: Sequence[str]
) -> Any:
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
    kinds : sequence of str
        What each layer lets a token see.
    """
    part: Any = cache.layers[index]
    rows: PrunedRows = part.rows
    if part.fresh:
        rows.forget_masks()
    if not rows.has_mask(mask, kinds[index]):
        keys = part.get_mask_sizes(hidden.shape[1])[0]
        build = partial(_built, config, cache, index, hidden)
        seen = keys if rows.static else part.get_seq_length() + hidden.shape[1]
        rows.make_mask(mask, hidden, keys, build, kind=kinds[index], seen=seen, shortened=part.shortened)
    short = rows.mask_of(kinds[index])
    if part.closing:
        rows.forget_masks()
    return short


def _built(config: PreTrainedConfig, cache: Cache, index: int, hidden: Tensor, visible: Tensor) -> object:
    return causal_mask(config, hidden, visible, cache, index)


def restore_attentions(cache: Cache, output: ModelOutput, kinds: Sequence[str]) -> None:
    """Put attention weights of a step, if they were asked for, back at full length.

    Parameters
    ----------
    cache : transformers.Cache
        The pruned cache.
    output : ModelOutput
        What the decoder returns; its attentions are replaced.
    kinds : sequence of str
        What each layer lets a token see.
    """
    attentions = list(output["attentions"])
    indices = attending_layers(kinds, len(attentions))
    # The first layer of each kind always holds all tokens.
    wide: dict[str, int] = {}
    for place, (index, weights) in enumerate(zip(indices, output["attentions"], strict=True)):
        keys = wide.setdefault(kinds[index], weights.shape[-1])
        part = pruned_layer(cache, index)
        if part is not None and part.rows is not None and part.shortened:
            attentions[place] = _restored(part, part.rows, weights, keys)
    output["attentions"] = tuple(attentions)


def _restored(part: PrunedLayer, pruned: PrunedRows, weights: Tensor, keys: int) -> Tensor:
    """Return the weights of a shortened layer, shape (B, Hq, Q, K), at the `keys` columns of a full one."""
    if pruned.static:
        columns = pruned.columns(weights.shape[-1])
    else:
        seen = part.get_seq_length()
        columns = pruned.columns(seen)[:, -weights.shape[-1] :]
        # A window holds the newest `keys` columns.
        columns = columns - (pruned.full + seen - pruned.kept - keys)
    rows = torch.arange(weights.shape[2], device=columns.device).expand(columns.shape[0], -1)
    return restored_attention(weights, rows, columns, (weights.shape[2], keys))

"""Everything that is refused, each with its reason: better no answer than a wrong one."""

import inspect
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from iwp_transformers.checkpointing import check_checkpointing
from iwp_transformers.chunks import HANDS_OUT_FEATURES
from iwp_transformers.hooks import is_pruned
from iwp_transformers.layer_kinds import RECURRENT, SERVED, WINDOWED
from iwp_transformers.masks import MASKED, SQUARE
from iwp_transformers.packing import check_packing
from iwp_transformers.versions import cache_in

if TYPE_CHECKING:
    from iwp_transformers.chunked_prefill import ChunkedPrefill
    from iwp_transformers.chunks import Chunk
    from iwp_transformers.plan import PruningPlan

__all__ = [
    "check_continuation",
    "check_history",
    "check_ids",
    "check_layers",
    "check_length",
    "check_prefill",
    "check_unused",
]

# Layers of a cache that give back what they were given.
IN_CHUNKS = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer)
# What additive masks hold where nothing may be attended to lies below this.
FORBIDDING = -1000.0


def check_history(history: int) -> None:
    """Raise unless `history` is a number of records.

    Raises
    ------
    ValueError
        If it is no int >= 1.
    """
    if isinstance(history, bool) or not isinstance(history, Integral) or history < 1:
        msg = f"`history` is {history!r}, expected an int >= 1: the number of records to hold"
        raise ValueError(msg)


def check_layers(plan: "PruningPlan") -> None:
    """Raise if a layer that would be shortened is of a kind of which this is not known to be exact.

    Raises
    ------
    NotImplementedError
        For such a kind, for recurrent layers in front of the one whose cache counts tokens, for keys and values that
        layers share, and for layers that place tokens by how many rows their cache holds.
    """
    kinds, first = plan.kinds, plan.stages[0].layer
    others = sorted(set(kinds[first:]) - set(SERVED))
    if others:
        msg = (
            f"layers from `layer={first}` on use {', '.join(others)}: which tokens they would look at if some were"
            f" removed is not known to be the same; served are {', '.join(SERVED)}"
        )
        raise NotImplementedError(msg)
    for stage in plan.stages:
        removal = plan.removal(stage)
        if set(kinds[stage.layer : removal]) & set(RECURRENT):
            msg = (
                f"tokens can be removed from layer {removal} on, since Transformers counts them by the caches of the"
                " layers before, and a recurrent layer before it cannot hide them: expected `layer` >="
                f" {_hidden_from(plan, removal)}"
            )
            raise NotImplementedError(msg)
    if getattr(plan.config, "num_kv_shared_layers", None):
        msg = (
            "the last layers share keys and values of earlier ones (`num_kv_shared_layers`), which would lack tokens: a"
            " layer's mask is shortened by what its own cache lacks, and these have none; this is not served"
        )
        raise NotImplementedError(msg)
    if plan.family.longest is None and any(_counts_rows(layer) for layer in plan.layers[first:]):
        msg = f"layers from `layer={first}` on place tokens by how many rows their cache holds, which pruning changes"
        raise NotImplementedError(msg)


def _hidden_from(plan: "PruningPlan", removal: int) -> int:
    """Return the first layer from which on none up to `removal` is recurrent."""
    return max(index + 1 for index in range(removal) if plan.kinds[index] in RECURRENT)


def _counts_rows(layer: nn.Module) -> bool:
    """Tell whether a part of a layer asks its cache how many tokens it holds."""
    codes = (getattr(inspect.unwrap(type(part).forward), "__code__", None) for part in layer.modules())
    return any(code is not None and "get_seq_length" in code.co_names for code in codes)


def check_unused(text: nn.Module) -> None:
    """Raise if a session is attached to the decoder.

    Raises
    ------
    ValueError
        If one is.
    """
    if is_pruned(text):
        msg = "`model` is being pruned by an open session already: close that one first"
        raise ValueError(msg)


def check_ids(tokens: Tensor | None) -> Tensor:
    """Return the token ids, without which nobody can tell what is visual.

    Raises
    ------
    NotImplementedError
        If there are none.
    """
    if tokens is None:
        msg = "`inputs_embeds` came without `input_ids`: which embeddings are visual is not known; pass the ids"
        raise NotImplementedError(msg)
    return tokens


def check_length(plan: "PruningPlan", length: int) -> None:
    """Raise if a sequence is longer than the layers can be exact for.

    Raises
    ------
    NotImplementedError
        If it is.
    """
    if plan.longest is not None and length > plan.longest:
        msg = (
            f"the sequence has {length} tokens: layers of a {type(plan.text).__name__} scale queries by how many rows"
            f" their cache holds, which pruning changes, from {plan.longest + 1} on"
        )
        raise NotImplementedError(msg)


def check_prefill(plan: "PruningPlan", arguments: Mapping[str, Any], length: int, chunk: "Chunk | None") -> None:
    """Raise if a forward of `length` visual and other tokens, or of one chunk of them, cannot be pruned exactly.

    Raises
    ------
    NotImplementedError
        If the end of the question is not known, the cache holds a recurrence, sequences are packed, layers are
        checkpointed in a way that is not known, windows would be counted in rows, or chunks would not add up to the
        prompt in one piece.
    """
    cache = cache_in(arguments)
    _check_windows(plan, cache)
    if chunk is not None:
        _check_chunk(plan, chunk, cache)
        return
    seen = 0 if cache is None else int(cache.get_seq_length())
    check_length(plan, seen + length)
    if seen and set(plan.kinds[plan.stages[0].layer :]) & set(RECURRENT):
        msg = (
            f"visual tokens arrive on a cache that holds {seen} tokens already, and layers from"
            f" {plan.stages[0].layer} on carry a recurrence: rows that only fill up a batch would enter it; give the"
            " images in one forward"
        )
        raise NotImplementedError(msg)
    if _cut(arguments.get("position_ids")):
        msg = (
            "the prompt comes in chunks that nobody tells the end of (its `position_ids` are the beginning of longer"
            " ones): the text that the tokens are chosen by would be incomplete; let `generate` cut the prompt by"
            " `prefill_chunk_size`, or pass contiguous positions"
        )
        raise NotImplementedError(msg)
    _check_values(arguments.get("attention_mask"))
    _check_adapters(plan.layers)
    check_packing(arguments, length, seen)
    check_checkpointing(plan.text, plan.layers, cache)


def _check_chunk(plan: "PruningPlan", chunk: "Chunk", cache: Cache | None) -> None:
    """Raise if the chunks of a prompt would not add up to the prompt in one piece.

    Raises
    ------
    NotImplementedError
        If they would not.
    """
    reason = None
    if not HANDS_OUT_FEATURES:
        reason = "this version of Transformers loses its images, which 5.24 hands out to the chunks"
    elif chunk.index < 0:
        reason = "this version of Transformers counts them in a new way"
    elif cache is None or chunk.cached:
        reason = "the cache holds tokens already, and images in later turns are served in one piece only"
    elif hasattr(plan.model, "create_masks_for_generate"):
        reason = f"a {type(plan.model).__name__} makes masks of its own, which may let tokens see later chunks"
    elif set(plan.kinds) & set(RECURRENT):
        reason = "a recurrence that goes on from chunk to chunk is not known to be that of one piece"
    elif plan.config._attn_implementation == "flex_attention":
        reason = "masks of 'flex_attention' are functions of a chunk's own rows"
    elif others := {type(part).__name__ for part in cache.layers if _own_class(part) not in IN_CHUNKS}:
        reason = f"{', '.join(sorted(others))} may give earlier chunks back otherwise than they were computed"
    if reason is not None:
        msg = f"the prompt comes in chunks, but {reason}; set `prefill_chunk_size=None`"
        raise NotImplementedError(msg)
    check_length(plan, sum(chunk.lengths))


def _own_class(part: object) -> type:
    """Return the class of Transformers that a layer of a cache is of, or its own."""
    kinds = type(part).__mro__
    return next((kind for kind in kinds if kind.__module__ == CacheLayerMixin.__module__), kinds[0])


def check_continuation(held: "ChunkedPrefill | None", chunk: "Chunk") -> "ChunkedPrefill":
    """Return what is held of a prompt, which a chunk is the next one of.

    Raises
    ------
    NotImplementedError
        If the session did not see the chunks before.
    """
    if held is None or not held.continues_with(chunk):
        msg = (
            "a chunk of a prompt comes whose earlier chunks this session did not see: tokens are chosen from the whole"
            " prompt; keep the session open from the first chunk on, and if the model is compiled, set"
            " `disable_compile=True` where the first chunk is text alone"
        )
        raise NotImplementedError(msg)
    return held


def _check_windows(plan: "PruningPlan", cache: Cache | None) -> None:
    """Raise if layers that would be shortened have windows or chunks that count rows instead of positions."""
    windows = sorted(set(plan.kinds[plan.stages[0].layer :]) & set(WINDOWED))
    implementation = plan.config._attn_implementation
    if windows and implementation not in MASKED:
        msg = (
            f"{', '.join(windows)} of {implementation!r} counts rows, so that with tokens removed it would reach too"
            " far back; use `attn_implementation` 'sdpa', 'eager' or 'flex_attention'"
        )
        raise NotImplementedError(msg)
    if windows and cache is not None and any(isinstance(part, StaticLayer) for part in cache.layers):
        msg = (
            f"{', '.join(windows)} of a static cache counts rows, so that with tokens removed it would reach too far"
            " back; use a dynamic cache"
        )
        raise NotImplementedError(msg)


def _check_values(mask: object) -> None:
    """Raise if a mask weighs tokens, instead of showing or hiding them.

    Raises
    ------
    NotImplementedError
        If it does.
    """
    if not isinstance(mask, Tensor) or mask.ndim != SQUARE or mask.dtype == torch.bool:
        return
    if bool(((mask != 0) & (mask > FORBIDDING)).any()):
        msg = (
            f"`attention_mask` holds numbers other than 0 and those below {FORBIDDING:g}, which forbid: rules that read"
            " attention take these tokens for hidden ones or for padding; expected a mask that shows or hides"
        )
        raise NotImplementedError(msg)


def _check_adapters(layers: Sequence[nn.Module]) -> None:
    """Raise if adapters tell by how many rows are left which tokens they are for.

    Raises
    ------
    NotImplementedError
        If they do.
    """
    parts = [part for layer in layers for part in layer.modules() if not vars(part).get("_disable_adapters")]
    variants = {type(each).__name__ for part in parts for each in vars(part).get("lora_variant", {}).values()}
    if any(name.startswith("ALora") for name in variants):
        msg = (
            "an activated LoRA (`alora_invocation_tokens`) counts from the end of the sequence, in rows, where its"
            " adapter begins, which pruning changes; switch the adapter off (`model.disable_adapter()`) or delete it"
        )
        raise NotImplementedError(msg)


def _cut(positions: Tensor | None) -> bool:
    """Tell whether positions are some columns of a wider tensor, which is how `generate` makes chunks."""
    return positions is not None and positions.ndim > 1 and positions.stride(-2) > positions.shape[-1]

"""Everything that is refused, each with its reason: better no answer than a wrong one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig

if TYPE_CHECKING:
    from iwp_transformers.plan import CacheMemory, PruningPlan

__all__ = [
    "check_continuation",
    "check_history",
    "check_ids",
    "check_layer",
    "check_layer_types",
    "check_prefill",
    "check_unknown_cache",
    "check_unused",
]

# Rows of M-RoPE positions when those of the text are put in front: text, time, height, width.
TEXT_AND_MULTIMODAL = 4


def check_layer(layer: int, layers: Sequence[nn.Module]) -> None:
    """Raise unless `layer` is one of the model's.

    Raises
    ------
    ValueError
        If it is not an int from 0 to the last layer.
    """
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < len(layers):
        msg = f"`layer` is {layer!r}, expected an int from 0 to {len(layers) - 1}: the model has {len(layers)} layers"
        raise ValueError(msg)


def check_history(history: int) -> None:
    """Raise unless `history` is a number of records.

    Raises
    ------
    ValueError
        If it is no int >= 1.
    """
    if isinstance(history, bool) or not isinstance(history, int) or history < 1:
        msg = f"`history` is {history!r}, expected an int >= 1: the number of records to hold"
        raise ValueError(msg)


def check_layer_types(config: PreTrainedConfig, layer: int) -> None:
    """Raise if a layer that would be shortened looks at anything but all tokens before.

    Raises
    ------
    NotImplementedError
        For sliding windows and other patterns, which count rows and not positions.
    """
    whole = "sliding_attention" if getattr(config, "sliding_window", None) is not None else "full_attention"
    types = getattr(config, "layer_types", None) or [whole] * config.num_hidden_layers
    others = sorted(set(types[layer:]) - {"full_attention"})
    if others:
        msg = (
            f"layers from `layer={layer}` on use {', '.join(others)}, which counts rows: with tokens removed it would"
            " reach too far back; only full attention can be pruned exactly"
        )
        raise NotImplementedError(msg)


def check_unused(text: nn.Module, session: type) -> None:
    """Raise if a session is attached to the language model.

    Raises
    ------
    ValueError
        If one is.
    """
    if any(isinstance(getattr(hook, "__self__", None), session) for hook in text._forward_pre_hooks.values()):
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


def check_prefill(plan: "PruningPlan", arguments: Mapping[str, Any], seen: int) -> None:
    """Raise if a forward with visual tokens cannot be pruned exactly.

    Raises
    ------
    NotImplementedError
        If the cache holds tokens already, the prompt comes in chunks, sequences are packed, or gradient
        checkpointing is on.
    """
    if seen:
        msg = (
            f"visual tokens arrive on a cache that holds {seen} tokens already (a later image, or a prefill in"
            " chunks): the tokens to keep are chosen once, from the whole prompt; give it in one forward"
        )
        raise NotImplementedError(msg)
    if _cut(arguments.get("position_ids")):
        msg = (
            "`position_ids` are the beginning of longer ones, as in a prefill in chunks: the text that the tokens are"
            " chosen by would be incomplete; set `prefill_chunk_size=None`, or pass contiguous positions"
        )
        raise NotImplementedError(msg)
    if arguments.get("cu_seq_lens_q") is not None or _packed(arguments):
        msg = "several sequences are packed into one row: pruning chooses for each row; use one sequence a row"
        raise NotImplementedError(msg)
    if any(layer.training and getattr(layer, "gradient_checkpointing", False) for layer in plan.layers):
        msg = (
            "gradient checkpointing runs a layer again without its neighbours, so it would not see which tokens were"
            " removed; switch it off while the session is open"
        )
        raise NotImplementedError(msg)


def _cut(positions: Tensor | None) -> bool:
    """Tell whether positions are some columns of a wider tensor, which is how `generate` makes chunks."""
    return positions is not None and positions.ndim > 1 and positions.stride(-2) > positions.shape[-1]


def _packed(arguments: Mapping[str, Any]) -> bool:
    """Tell whether Transformers would read the positions as several sequences in a row."""
    positions = arguments.get("position_ids")
    if positions is None or arguments.get("attention_mask") is not None or arguments.get("past_key_values") is not None:
        return False
    *rows, _, _ = positions.shape
    if rows:
        # Multimodal positions jump within one sequence; only the text row in front of their three tells.
        if rows != [TEXT_AND_MULTIMODAL]:
            return False
        positions = positions[0]
    return bool((positions.diff(dim=-1) != 1).any())


def check_continuation(memory: "CacheMemory", seen: int, batch: int) -> None:
    """Raise if a pruned cache is not as it was left.

    Raises
    ------
    NotImplementedError
        If it was cropped, or a batch of several samples repeated or selected from.
    """
    if seen != memory.seen:
        msg = (
            f"the cache holds {seen} tokens but {memory.seen} were seen: it was cropped (assisted decoding does),"
            " or filled elsewhere; the layers behind the pruned one would be out of step"
        )
        raise NotImplementedError(msg)
    if memory.visible.shape[0] not in (1, batch):
        msg = (
            f"the cache was pruned with {memory.visible.shape[0]} samples and is used with {batch}: which tokens were"
            " removed is known by sample; repeat the samples before the prefill"
        )
        raise NotImplementedError(msg)


def check_unknown_cache(cache: Cache, layers: int) -> None:
    """Raise if a cache that this session did not fill was pruned.

    Raises
    ------
    NotImplementedError
        If its layers hold different numbers of tokens.
    """
    if int(cache.get_seq_length(0)) != int(cache.get_seq_length(layers - 1)):
        msg = (
            "the cache was pruned by another session, or is a copy: which tokens it lacks is not known;"
            " go on with the cache and the session of its prefill"
        )
        raise NotImplementedError(msg)

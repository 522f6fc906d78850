"""What differs between versions of Transformers, in one place; tested from `OLDEST` to `NEWEST`."""

import inspect
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

import transformers
from packaging.version import Version
from torch import Tensor
from transformers import Cache, EncoderDecoderCache, PreTrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, create_causal_mask

__all__ = ["CACHE_ARGUMENT", "NEWEST", "OLDEST", "cache_in", "causal_mask", "miss_mask", "warn_if_untested"]

OLDEST, NEWEST = "5.17", "5.24"

CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
"""The argument by which models take their cache: `past_key_values`, renamed to `cache` in 5.24."""


@cache
def warn_if_untested(version: str = transformers.__version__) -> None:
    """Warn once if Transformers is newer than what was tested.

    Parameters
    ----------
    version : str
        Version of Transformers.
    """
    if Version(version).release[:2] > Version(NEWEST).release[:2]:
        warnings.warn(
            f"Transformers {version} is newer than {NEWEST}, the newest that iwp was tested with; what its hooks cannot"
            " recognise is refused, but compare a few answers with `budget=1.0` before you rely on it",
            stacklevel=4,
        )


def cache_in(arguments: Mapping[str, Any]) -> Cache | None:
    """Return the cache among some arguments, under whatever name it goes.

    Parameters
    ----------
    arguments : mapping
        Keyword arguments of a model or a layer.

    Returns
    -------
    transformers.Cache or None
        The cache; None if there is none.

    Raises
    ------
    NotImplementedError
        If the cache is that of an encoder and a decoder.
    """
    named = arguments.get(CACHE_ARGUMENT)
    if isinstance(named, Cache):
        return named
    for value in arguments.values():
        if isinstance(value, Cache):
            return value
        if isinstance(value, EncoderDecoderCache):
            msg = "the cache is an EncoderDecoderCache: only decoders that attend to their own tokens can be pruned"
            raise NotImplementedError(msg)
    return None


def miss_mask(index: int) -> NoReturn:
    """Raise: without its mask, layer `index` would attend to what was dropped.

    Raises
    ------
    RuntimeError
        Always.
    """
    msg = (
        f"layer {index} was called without `attention_mask`, which it takes: this version of Transformers hands"
        " masks over in a new way, and pruning would miss them"
    )
    raise RuntimeError(msg)


def causal_mask(config: PreTrainedConfig, hidden: Tensor, visible: Tensor, cache: Cache | None, layer: int) -> object:
    """Build the causal mask of a layer that had none, because nothing was padding before tokens were dropped.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the decoder.
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
    arguments: dict[str, Any] = {
        "config": config,
        "inputs_embeds": hidden,
        "attention_mask": visible.to(hidden.device),
        "layer_idx": layer,
        CACHE_ARGUMENT: cache,
    }
    return create_causal_mask(**arguments)

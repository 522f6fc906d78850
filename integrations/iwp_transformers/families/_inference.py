"""A family for a model that nobody wrote one for, told by its configuration, its signature and its decoder."""

import dis
import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from torch import nn

from iwp_transformers.families._family import Family, Medium
from iwp_transformers.families._layouts import VIDEOS_AS_IMAGES, region_reader

__all__ = ["inferred_family", "warn_of_inferred"]

# Attributes of configurations that hold a placeholder's id, and arguments that bring its features.
_VISUAL = {
    "image": (("image_token_id", "image_token_index", "image_patch_id"), "pixel_values"),
    "video": (("video_token_id", "video_token_index"), "pixel_values_videos"),
}
_AUDIBLE = {"audio": (("audio_token_id", "audio_token_index"), "input_features")}
# Arguments of decoders and layers that read images without a token of their own.
_CROSSING = {"cross_attention_states", "cross_attention_mask", "encoder_hidden_states", "image_hidden_states"}


def inferred_family(model: nn.Module) -> Family:
    """Return what can be told of a model.

    Parameters
    ----------
    model : torch.nn.Module
        A model of Transformers.

    Returns
    -------
    Family
        With pictures where it is known where the tokens of such models look.

    Raises
    ------
    TypeError
        If something that is needed cannot be told; the message says what.
    """
    media = _media(model, _VISUAL) + _media(model, _AUDIBLE)
    missing = _missing(model, media)
    if missing:
        msg = f"`model` is a {type(model).__name__}, which cannot be pruned: {missing}"
        raise TypeError(msg)
    known = {medium.pixels for medium in media}
    wanted = {argument for _, argument in _VISUAL.values()}
    unplaced = tuple(sorted((wanted & _arguments(Family.inner_of(model))) - known))
    config: Any = model.config
    return Family(
        models=(type(model).__name__,), media=media, unplaced=unplaced, regions=region_reader(config.model_type)
    )


def warn_of_inferred(family: Family, decoder: nn.Module) -> None:
    """Warn, once for each class, that a family was inferred, and name what was found.

    Parameters
    ----------
    family : Family
        What `inferred_family` returned.
    decoder : torch.nn.Module
        The decoder of its model.
    """
    found = ", ".join(f"{medium.pixels} at `{medium.token}`" for medium in family.media)
    _warn_once(family.models[0], found, type(decoder).__name__)


def _media(model: nn.Module, kinds: Mapping[str, tuple[tuple[str, ...], str]]) -> tuple[Medium, ...]:
    config: Any = getattr(model, "config", None)
    taken = _arguments(Family.inner_of(model))
    if getattr(config, "model_type", None) in VIDEOS_AS_IMAGES and "video" in kinds:
        kinds = {**kinds, "video": (kinds["image"][0], kinds["video"][1])}
    return tuple(
        Medium(name=name, token=token, pixels=pixels)
        for name, (tokens, pixels) in kinds.items()
        if pixels in taken
        for token in [_first(config, tokens)]
        if token is not None
    )


def _first(config: Any, tokens: tuple[str, ...]) -> str | None:
    return next((token for token in tokens if isinstance(getattr(config, token, None), int)), None)


def _arguments(module: nn.Module) -> set[str]:
    return set(inspect.signature(type(module).forward).parameters)


def _missing(model: nn.Module, media: tuple[Medium, ...]) -> str:
    """Return what keeps a model from being pruned; empty if nothing does."""
    config: Any = getattr(model, "config", None)
    inner = Family.inner_of(model)
    if config is None or "input_ids" not in _arguments(inner):
        return "it takes no `input_ids`, or has no configuration"
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder reads its images, and no token of its decoder is visual"
    if not media:
        names = ", ".join(f"`{token}`" for tokens, _ in (*_VISUAL.values(), *_AUDIBLE.values()) for token in tokens)
        return f"its configuration has none of {names} together with an argument that brings the features"
    text: Any = Family.decoder_of(inner)
    if text is None:
        return "its `get_decoder()` leads to no module with a list of `layers`"
    if _CROSSING & (_arguments(text) | _arguments(text.layers[0])):
        return "its decoder reads images by cross-attention, and no token of its sequence is visual"
    return _bypassed(getattr(type(model), "generate", None))


@cache
def _bypassed(generate: Callable[..., Any] | None) -> str:
    """Return why hooks would not see what a class's `generate` does; empty if they would."""
    code = getattr(inspect.unwrap(generate), "__code__", None) if generate is not None else None
    names = [] if code is None else [instruction.argval for instruction in dis.get_instructions(code)]
    if ("language_model", "generate") in pairwise(names):
        return "its `generate` hands embeddings to the decoder past the model that knows which of them are visual"
    return ""


@cache
def _warn_once(kind: str, found: str, decoder: str) -> None:
    warnings.warn(
        f"{kind} is served by what was found in its configuration: {found}, decoded by {decoder}; compare a few"
        " answers with `budget=1.0` before you rely on it",
        stacklevel=4,
    )

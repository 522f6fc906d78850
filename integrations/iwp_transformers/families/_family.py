"""What the integration has to know about a model family, and nothing else."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from iwp_transformers.regions import Region

__all__ = ["Family", "Medium", "RegionReader"]

RegionReader = Callable[[PreTrainedConfig, Mapping[str, Any], int], tuple[Region, ...]]


@dataclass(frozen=True, kw_only=True)
class Medium:
    """One modality: the placeholder of its tokens in the prompt, and the argument with its pixels.

    Attributes
    ----------
    name : str
        The modality: "image", "video" or "audio". It is also the key of its features in `mm_encoder_outputs`, which
        `generate` may compute in advance.
    token : str
        Attribute of the model's configuration with the placeholder's token id.
    pixels : str
        Argument of the model's forward with the raw pixels, or with the audio features.
    """

    name: str
    token: str
    pixels: str


IMAGE = Medium(name="image", token="image_token_id", pixels="pixel_values")
VIDEO = Medium(name="video", token="video_token_id", pixels="pixel_values_videos")

# Arguments that tell the part of a model that takes features, and how deep a decoder may be wrapped.
_FEATURES, _DEPTH = ("pixel_values", "input_features"), 4


def _no_regions(config: PreTrainedConfig, _inputs: Mapping[str, Any], _sample: int) -> tuple[Region, ...]:
    msg = f"where the visual tokens of a {config.model_type!r} model look is not known: its kept tokens cannot be drawn"
    raise NotImplementedError(msg)


def _has_layers(module: nn.Module) -> bool:
    return isinstance(getattr(module, "layers", None), nn.ModuleList)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of vision-language models that `prune_visual_tokens` serves.

    Attributes
    ----------
    models : tuple of str
        Class names: the model with the language head first, then the one without.
    media : tuple of Medium
        The modalities that the family has.
    regions : callable, optional
        Takes configuration, processor output and sample, and returns one `Region` for each visual token in sequence
        order. Without it, kept tokens cannot be drawn.
    unplaced : tuple of str
        Arguments with features whose placeholder is not known; a call with one of them is refused.
    longest : callable, optional
        For decoders whose layers count the rows of their cache: takes the decoder and returns the length of sequence up
        to which the count does not matter, or None if it never matters.
    """

    models: tuple[str, ...]
    media: tuple[Medium, ...]
    regions: RegionReader = _no_regions
    unplaced: tuple[str, ...] = ()
    longest: Callable[[nn.Module], int | None] | None = None

    @property
    def seen(self) -> tuple[Medium, ...]:
        """Modalities that a budget without names applies to: images and videos, or audio if the model has neither."""
        return tuple(medium for medium in self.media if medium.name != "audio") or self.media

    @property
    def bringers(self) -> tuple[str, ...]:
        """Arguments of the model that may carry visual features."""
        return ("mm_encoder_outputs", *(medium.pixels for medium in self.media), *self.unplaced)

    @staticmethod
    def inner_of(model: nn.Module) -> nn.Module:
        """Return the module that takes token ids and features: the model without its head, or the model itself."""
        inner = getattr(model, "model", None)
        if not isinstance(inner, nn.Module):
            return model
        taken = inspect.signature(type(inner).forward).parameters
        return inner if "input_ids" in taken and any(name in taken for name in _FEATURES) else model

    @staticmethod
    def decoder_of(inner: nn.Module) -> nn.Module | None:
        """Return the decoder, a module with a list of `layers`, or None if there is none."""
        module: Any = inner
        for _ in range(_DEPTH):
            ask = getattr(module, "get_decoder", None)
            below = None if ask is None else ask()
            if below is None or below is module:
                below = module if _has_layers(module) else getattr(module, "model", None)
            if below is None or _has_layers(below):
                return below
            module = below
        return None

    def stacks(self, model: nn.Module) -> tuple[Any, Any]:
        """Return the model without the head, and the decoder with its `layers` and `config`.

        Parameters
        ----------
        model : torch.nn.Module
            A model of the family, with or without its head.

        Raises
        ------
        TypeError
            If the model has no such decoder.
        """
        inner = self.inner_of(model)
        decoder = self.decoder_of(inner)
        if decoder is None:
            msg = f"`get_decoder()` of a {type(inner).__name__} leads to no module with a list of `layers`"
            raise TypeError(msg)
        return inner, decoder

    def placeholders(
        self, config: PreTrainedConfig, features: Mapping[str, Any], named: Collection[str] | None = None
    ) -> dict[str, int]:
        """Return, by modality, the ids of the placeholders that this call passes features for.

        A placeholder id without features counts as text, since a model may sample one while it decodes.

        Parameters
        ----------
        config : transformers.PreTrainedConfig
            Configuration of the multimodal model.
        features : mapping
            The arguments of the call.
        named : collection of str, optional
            The modalities that a budget names. If it is given, all modalities are returned; otherwise audio counts as
            text if there are images or videos.

        Raises
        ------
        NotImplementedError
            If features are passed whose placeholder is not known.
        """
        encoded = features.get("mm_encoder_outputs") or {}
        for name in self.unplaced:
            if features.get(name) is not None:
                msg = (
                    f"`{name}` came, but the configuration names no placeholder for its features: they cannot be pruned"
                )
                raise NotImplementedError(msg)
        return {
            medium.name: getattr(config, medium.token)
            for medium in (self.seen if named is None else self.media)
            if features.get(medium.pixels) is not None or encoded.get(medium.name) is not None
        }

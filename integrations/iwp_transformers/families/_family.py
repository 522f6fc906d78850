"""What the integration has to know about a model family, and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from iwp_transformers.geometry import Region

__all__ = ["Family", "Medium", "RegionReader"]

RegionReader = Callable[[PreTrainedConfig, Mapping[str, Any], int], tuple[Region, ...]]


@dataclass(frozen=True, kw_only=True)
class Medium:
    """One kind of visual input: the placeholder it stands at and the arguments that bring its features.

    Attributes
    ----------
    name : str
        Key of the medium in `mm_encoder_outputs`, the features that `generate` encodes ahead.
    token : str
        Attribute of the model's configuration with the placeholder's token id.
    pixels : str
        Argument of the model's forward with the raw pixels.
    """

    name: str
    token: str
    pixels: str


IMAGE = Medium(name="image", token="image_token_id", pixels="pixel_values")
VIDEO = Medium(name="video", token="video_token_id", pixels="pixel_values_videos")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of vision-language models that `prune_visual_tokens` serves.

    Attributes
    ----------
    models : tuple of str
        Class names: the model with the language head first, then the one without.
    media : tuple of Medium
        The visual inputs that the family knows.
    regions : callable
        (config, processor output, sample) to one `Region` per visual token, in sequence order.
    """

    models: tuple[str, ...]
    media: tuple[Medium, ...]
    regions: RegionReader

    @property
    def bringers(self) -> tuple[str, ...]:
        """Arguments of the model that may bring visual features."""
        return ("mm_encoder_outputs", *(medium.pixels for medium in self.media))

    def stacks(self, model: nn.Module) -> tuple[Any, Any]:
        """Return the model without the head, and the decoder with its `layers` and `config`.

        Parameters
        ----------
        model : torch.nn.Module
            A model of the family, with or without its head.
        """
        own = {base.__name__ for base in type(model).__mro__}
        inner: Any = model if self.models[1] in own else getattr(model, "model", model)
        return inner, inner.get_decoder()

    def token_ids(self, config: PreTrainedConfig, features: Mapping[str, Any]) -> list[int]:
        """Return the placeholder ids that stand for features in this call.

        A placeholder id without features is text: a model may sample one while it decodes.
        """
        encoded = features.get("mm_encoder_outputs") or {}
        return [
            getattr(config, medium.token)
            for medium in self.media
            if features.get(medium.pixels) is not None or encoded.get(medium.name) is not None
        ]

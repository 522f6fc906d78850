"""What the integration has to know about a model family, and nothing else."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig

from iwp_transformers.geometry import Region

__all__ = ["Family", "Medium", "Projector", "RegionReader", "Rotator", "llama_projection", "llama_rotation"]

Projector = Callable[[nn.Module, Tensor, str], Tensor]
Rotator = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
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


def llama_projection(layer: nn.Module, hidden: Tensor, name: str) -> Tensor:
    """Project layer inputs to heads the way Llama and its many descendants do.

    Parameters
    ----------
    layer : torch.nn.Module
        Decoder layer with `input_layernorm` and `self_attn`.
    hidden : torch.Tensor
        Inputs of the layer, shape (n, E).
    name : {"q", "k", "v"}
        Which projection; a per-head `q_norm` or `k_norm` (Qwen3) is applied where there is one.

    Returns
    -------
    torch.Tensor
        Shape (heads, n, D), before rotary embedding.
    """
    block: Any = layer
    attention = block.self_attn
    normed = block.input_layernorm(hidden)
    heads: Tensor = getattr(attention, f"{name}_proj")(normed).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    if norm is not None:
        heads = norm(heads)
    return heads.transpose(0, 1)


def llama_rotation(layer: nn.Module, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys with the function that the layer's own module uses.

    Parameters
    ----------
    layer : torch.nn.Module
        Decoder layer whose attention's module defines `apply_rotary_pos_emb`.
    heads : torch.Tensor
        Shape (heads, n, D).
    cos, sin : torch.Tensor
        Shape (n, D).

    Returns
    -------
    torch.Tensor
        Shape (heads, n, D).
    """
    rotate = sys.modules[type(layer.self_attn).__module__].apply_rotary_pos_emb
    batch = heads.unsqueeze(0)
    rotated: Tensor = rotate(batch, batch[:, :0], cos.unsqueeze(0), sin.unsqueeze(0))[0]
    return rotated.squeeze(0)


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
    project : callable
        (layer, hidden (n, E), "q" | "k" | "v") to heads (heads, n, D).
    rotate : callable
        (layer, heads (heads, n, D), cos (n, D), sin (n, D)) to rotated heads.

    Notes
    -----
    Every family's model without the head has its text stack at `language_model`, with `layers` and `config`.
    """

    models: tuple[str, ...]
    media: tuple[Medium, ...]
    regions: RegionReader
    project: Projector = llama_projection
    rotate: Rotator = llama_rotation

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

    def features(self, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the objects that bring visual features, to tell by identity whether two calls see the same."""
        encoded = arguments.get("mm_encoder_outputs") or {}
        return tuple(item for medium in self.media for item in (arguments.get(medium.pixels), encoded.get(medium.name)))

"""Tiny random models of every class of the image-text-to-text mapping, each from its default configuration."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.models.overrides import OVERRIDES
from tests.models.sizes import DECODER, DERIVED, FIRST_SPECIAL, PAD, TOWER, VOCABULARY, WHOLE

CLASSES: dict[str, str] = dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
"""Class by model type, as this version of Transformers lists them."""

DECODERS = ("text", "llm", "decoder", "thinker", "language")
"""What the name of a configuration holds if it is the decoder's and not a tower's."""

GIVEN_ANYWAY = (
    "pad_token_id",
    "num_key_value_heads",
    "head_dim",
    "image_token_id",
    "image_token_index",
    "vision_start_token_id",
)
"""Entries that get their small value also where the default is None."""


def tiny_model(model_type: str) -> nn.Module:
    """Return a model with 4 decoder layers and weights under which every token matters."""
    torch.manual_seed(0)
    model = getattr(transformers, CLASSES[model_type])(tiny_config(model_type))
    return weighted(model)


def tiny_config(model_type: str) -> Any:
    """Return the default configuration of a model type with small numbers and what `OVERRIDES` changes."""
    overrides = OVERRIDES[model_type].config if model_type in OVERRIDES else {}
    made = CONFIG_MAPPING[model_type]
    default = made().to_dict()
    for name, part in overrides.items():
        if isinstance(part, dict) and "model_type" in part:
            default[name] = CONFIG_MAPPING[part["model_type"]]().to_dict()
    composite = any(_is_part(name, value) and _is_decoder(name) for name, value in default.items())
    shrunk = _shrunk(default, WHOLE if composite else DECODER)
    return made(**_merged(shrunk, overrides))


def _is_part(name: str, value: object) -> bool:
    return isinstance(value, dict) and name.endswith("config") and name not in DERIVED


def _is_decoder(name: str) -> bool:
    return any(part in name for part in DECODERS)


def _shrunk(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what its class derives, and with small numbers."""
    small: dict[str, Any] = {}
    for name, value in config.items():
        if _is_part(name, value):
            small[name] = _shrunk(value, DECODER if _is_decoder(name) else TOWER)
            small[name]["model_type"] = value.get("model_type")
        elif name == "rope_parameters" and isinstance(value, dict) and value.get("mrope_section"):
            small[name] = {**value, "mrope_section": [2, 1, 1]}
        elif name not in DERIVED:
            small[name] = _small(name, value, sizes)
    return small


def _small(name: str, value: Any, sizes: Mapping[str, Any]) -> Any:
    if name not in sizes or (value is None and name not in GIVEN_ANYWAY):
        return value
    small = sizes[name]
    if isinstance(value, list) != isinstance(small, list):
        return value
    return float(small) if isinstance(value, float) else small


def _merged(config: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(config)
    for name, value in overrides.items():
        parts = _is_part(name, value) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if parts else value
    return merged


def weighted(model: nn.Module) -> nn.Module:
    """Give a model weights under which attention is sharp, keys are biased and every token matters."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            continue
        scale = 0.5 if "q_proj" in name or "k_proj" in name else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    settings = getattr(model, "generation_config", None)
    if settings is not None:
        # Whatever the random weights would stop at, a test decides for itself how long it decodes.
        settings.eos_token_id, settings.pad_token_id, settings.bos_token_id = None, PAD, 1
        # A placeholder among the decoded tokens would count as a missing image when the whole text is run again.
        settings.suppress_tokens = [PAD, 1, 2, *range(FIRST_SPECIAL, VOCABULARY)]
    return model.eval()


def decoder_of(model: Any) -> Any:
    """Return the module that runs the decoder's layers."""
    decoder = model.get_decoder()
    while not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        inner = decoder.get_decoder() if hasattr(decoder, "get_decoder") else None
        decoder = inner if inner is not None and inner is not decoder else decoder.model
    return decoder


@contextmanager
def attending(model: Any, implementation: str) -> Iterator[None]:
    """Run a model's decoder with another implementation of attention for a while."""
    decoder = decoder_of(model)
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation(implementation)
    try:
        yield
    finally:
        decoder.set_attn_implementation(before)

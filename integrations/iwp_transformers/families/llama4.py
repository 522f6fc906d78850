"""Llama 4: chunks, and layers without rotation that scale queries by how many tokens came before."""

from typing import Any

from torch import nn

from iwp_transformers.families._family import Family, Medium


def _longest(text: nn.Module) -> int | None:
    """Return up to how many tokens every query is scaled by one: until then it does not matter how they are counted."""
    layers: Any = text.layers
    parts = [layer.self_attn for layer in layers]
    scales = [int(part.floor_scale) - 1 for part in parts if part.attn_temperature_tuning and not part.use_rope]
    return min(scales, default=None)


LLAMA4 = Family(
    models=("Llama4ForConditionalGeneration",),
    media=(Medium(name="image", token="image_token_index", pixels="pixel_values"),),
    longest=_longest,
)

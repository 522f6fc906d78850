"""What a vision tower computes, read anew: an eager copy that returns its whole attention, placed by loops."""

import copy
from typing import Any

import torch
from torch import Tensor

from tests.integrations.tiny_models import CROP, PATCH

SIDE = CROP // PATCH
"""Patches along each side of a tile of the LLaVA miniatures."""


def eager_tower(model: Any) -> Any:
    """Return a copy of the model's vision tower in eager attention."""
    name = "visual" if hasattr(model.model, "visual") else "vision_tower"
    tower = copy.deepcopy(getattr(model.model, name))
    tower.set_attn_implementation("eager")
    return tower


def received_by_patch(model: Any, inputs: dict[str, Any]) -> Tensor:
    """Return what the tower's last layer gives each patch, from the class token or in the mean.

    Shape (tiles, heads, patches) for a LLaVA; (heads, patches in the order of the pixels) for a Qwen.
    """
    tower = eager_tower(model)
    if hasattr(model.model, "visual"):
        return _received_by_qwen(tower, inputs["image_grid_thw"], inputs["pixel_values"])
    tiles = inputs["pixel_values"].flatten(0, 1)
    with torch.no_grad():
        weights = tower(tiles, output_attentions=True).attentions[-1]
    if "CLIP" in type(tower).__name__:
        return weights[:, :, 0, 1:]
    return weights.mean(2)


def _received_by_qwen(tower: Any, grids: Tensor, pixels: Tensor) -> Tensor:
    parts, start = [], 0
    for frames, height, width in grids.tolist():
        count = frames * height * width
        with torch.no_grad():
            heard: list[Tensor] = []
            handle = tower.blocks[-1].attn.register_forward_pre_hook(
                lambda _m, args, kwargs, heard=heard: heard.append((args[0] if args else kwargs["hidden_states"], kwargs)),
                with_kwargs=True,
            )
            tower(pixels[start : start + count], grid_thw=torch.tensor([[frames, height, width]]))
            handle.remove()
        parts.append(_unwindowed(_attention_of(tower.blocks[-1].attn, *heard[0]), height // 2, width // 2))
        start += count
    return torch.cat(parts, dim=1)


def _attention_of(attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """Return the column means of one image's whole soft-max, (heads, patches)."""
    queries, keys, _ = attention.qkv(hidden).view(len(hidden), 3, attention.num_heads, -1).unbind(1)
    cos, sin = (part[:, None] for part in kwargs["position_embeddings"])

    def turned(part: Tensor) -> Tensor:
        half = part.shape[-1] // 2
        return part * cos + torch.cat((-part[..., half:], part[..., :half]), -1) * sin

    logits = torch.einsum("qhd,khd->hqk", turned(queries), turned(keys)) * attention.scaling
    return logits.softmax(-1).mean(1)


def _unwindowed(rows: Tensor, height: int, width: int, window: int = 2) -> Tensor:
    """Put (heads, patches) of one image in windows back into the order of the pixels, four patches a token."""
    order = [
        row * width + column
        for top in range(0, height, window)
        for left in range(0, width, window)
        for row in range(top, min(top + window, height))
        for column in range(left, min(left + window, width))
    ]
    found = torch.empty_like(rows).view(len(rows), -1, 4)
    found[:, order] = rows.view(len(rows), -1, 4)
    return found.flatten(1)


def tokens_of_views(model: Any, patches: list[Tensor]) -> list[Tensor]:
    """Return (heads, tokens) of each image or tile whose (heads, patches) are given."""
    if hasattr(model.model, "visual"):
        return [part.view(len(part), -1, 4).mean(2) for part in patches]
    return patches

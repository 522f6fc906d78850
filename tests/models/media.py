"""Images as each model's processor hands them over, random and small: one or two, the second one smaller."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Media = dict[str, Any]
Maker = Callable[[Any, int, torch.Generator], Media]

GRIDS = torch.tensor([[1, 8, 8], [1, 4, 8]])
"""Patches of an image in time, height and width, for models of native resolution."""


def media_for(model: Any, model_type: str, images: int) -> Media:
    """Return the pixels of so many images, and what says how they are laid out."""
    make = MAKERS.get(model_type) or _maker_of(model)
    return make(model.config, images, torch.Generator().manual_seed(11))


def _maker_of(model: Any) -> Maker:
    """Tell by the arguments of the model that takes the pixels how its images are laid out."""
    arguments = inspect.signature(type(taker_of(model)).forward).parameters
    for argument, make in (("image_grid_thw", patches), ("pixel_attention_mask", framed), ("image_sizes", crops)):
        if argument in arguments:
            return make
    return squares


def taker_of(model: Any) -> Any:
    """Return the module that puts features in place of tokens: the model without its head, where there is one."""
    inner = getattr(model, "model", None)
    takes = inner is not None and "pixel_values" in inspect.signature(type(inner).forward).parameters
    return inner if takes else model


def tower_of(config: Any) -> Any:
    """Return the configuration of the tower, or the whole one."""
    return getattr(config, "vision_config", None) or config


def _random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _side(config: Any) -> int:
    size = getattr(tower_of(config), "image_size", 16)
    return int(size if isinstance(size, int) else size[0])


def squares(config: Any, images: int, generator: torch.Generator) -> Media:
    """Images of one fixed size."""
    side = _side(config)
    return {"pixel_values": _random(generator, images, 3, side, side)}


def patches(config: Any, images: int, generator: torch.Generator) -> Media:
    """Flattened patches of all images in one row, with the grid of each (Qwen2-VL and most after it)."""
    tower, grids = tower_of(config), GRIDS[:images]
    time, channels = getattr(tower, "temporal_patch_size", 1) or 1, getattr(tower, "in_channels", 3)
    width = channels * time * tower.patch_size**2
    return {"pixel_values": _random(generator, int(grids.prod(1).sum()), width), "image_grid_thw": grids}


def square_patches(config: Any, images: int, generator: torch.Generator) -> Media:
    """Patches of all images in one row, each a small image (Kimi-VL, PaddleOCR-VL)."""
    side, grids = tower_of(config).patch_size, GRIDS[:images]
    return {"pixel_values": _random(generator, int(grids.prod(1).sum()), 3, side, side), "image_grid_thw": grids}


def merged_patches(config: Any, images: int, generator: torch.Generator) -> Media:
    """Flattened patches, and how many of them each image merges (VideoLLaMA3)."""
    return {**patches(config, images, generator), "image_merge_sizes": torch.tensor([2] * images)}


def crops(config: Any, images: int, generator: torch.Generator) -> Media:
    """A view of the whole image and four crops of it, padded away where the image is narrow (LLaVA-NeXT)."""
    side = _side(config)
    sizes = torch.tensor([[2 * side, 2 * side], [2 * side, side + side // 2]])[:images]
    return {"pixel_values": _random(generator, images, 5, 3, side, side), "image_sizes": sizes}


def sized(config: Any, images: int, generator: torch.Generator) -> Media:
    """Images padded to one size, with their own (Pixtral)."""
    side, patch = _side(config), tower_of(config).patch_size * getattr(config, "spatial_merge_size", 1)
    sizes = torch.tensor([[side, side], [side, side - patch]])[:images]
    return {"pixel_values": _random(generator, images, 3, side, side), "image_sizes": sizes}


def framed(config: Any, images: int, generator: torch.Generator) -> Media:
    """Images padded to one size, a list for each sample, with masks of their pixels (Idefics)."""
    side = _side(config)
    return {
        "pixel_values": _random(generator, images, 1, 3, side, side),
        "pixel_attention_mask": torch.ones(images, 1, side, side, dtype=torch.bool),
    }


def packed(config: Any, images: int, generator: torch.Generator) -> Media:
    """All images side by side in one strip of patches (MiniCPM-V)."""
    side, sizes = tower_of(config).patch_size, torch.tensor([[8, 8], [8, 8]], dtype=torch.int32)[:images]
    strip = _random(generator, 1, 3, side, side * int(sizes.prod(1).sum()))
    return {"pixel_values": strip, "target_sizes": sizes}


def padded_patches(config: Any, images: int, generator: torch.Generator) -> Media:
    """Flattened patches padded to one count, with the shape and mask of each image (SigLIP 2)."""
    width = 3 * tower_of(config).patch_size ** 2
    return {
        "pixel_values": _random(generator, images, 16, width),
        "spatial_shapes": torch.tensor([[4, 4]] * images),
        "pixel_attention_mask": torch.ones(images, 16, dtype=torch.long),
    }


MAKERS: dict[str, Maker] = {
    "kimi_k25": square_patches,
    "paddleocr_vl": square_patches,
    "video_llama_3": merged_patches,
    **dict.fromkeys(("minicpmv4_6", "minicpmv4_7", "minicpm_ocr"), packed),
    "lfm2_vl": padded_patches,
    **dict.fromkeys(("mistral3", "lighton_ocr", "mistral_large4"), sized),
    **dict.fromkeys(("lfm3_vl", "minimax_m3_vl"), patches),
}
"""How images are laid out where the arguments of the model do not say it."""

"""Images as each model's processor hands them over, random and small: one or two, the second one smaller.

Each maker is given the configuration and how many images each sample has; `sum` of it is how many there are.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Media = dict[str, Any]
Maker = Callable[[Any, Sequence[int], torch.Generator], Media]

GRIDS = torch.tensor([[1, 8, 8], [1, 4, 8]])
"""Patches of an image in time, height and width, for models of native resolution."""


def media_for(model: Any, model_type: str, images: Sequence[int]) -> Media:
    """Return the pixels of so many images in each sample, and what says how they are laid out."""
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


def squares(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Images of one fixed size."""
    side = _side(config)
    return {"pixel_values": _random(generator, sum(images), 3, side, side)}


def patches(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Flattened patches of all images in one row, with the grid of each (Qwen2-VL and most after it)."""
    tower, grids = tower_of(config), GRIDS[: sum(images)]
    time: Any = getattr(tower, "temporal_patch_size", None) or getattr(tower, "patch_temporal", 1)
    channels = getattr(tower, "in_channels", 3)
    width = channels * time * tower.patch_size**2
    return {"pixel_values": _random(generator, int(grids.prod(1).sum()), width), "image_grid_thw": grids}


def square_patches(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Patches of all images in one row, each a small image (Kimi-VL, PaddleOCR-VL)."""
    side, grids = tower_of(config).patch_size, GRIDS[: sum(images)]
    return {"pixel_values": _random(generator, int(grids.prod(1).sum()), 3, side, side), "image_grid_thw": grids}


def merged_patches(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Flattened patches, and how many of them each image merges (VideoLLaMA3)."""
    return {**patches(config, images, generator), "image_merge_sizes": torch.tensor([2] * sum(images))}


def crops(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Five squares of each image, the whole and four crops, padded away where the image is narrow (LLaVA-NeXT)."""
    side = _side(config)
    sizes = torch.tensor([[2 * side, 2 * side], [2 * side, side + side // 2]])[: sum(images)]
    return {"pixel_values": _random(generator, sum(images), 5, 3, side, side), "image_sizes": sizes}


def sized(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Images padded to one size, with their own (Pixtral)."""
    side, patch = _side(config), tower_of(config).patch_size * getattr(config, "spatial_merge_size", 1)
    sizes = torch.tensor([[side, side], [side, side - patch]])[: sum(images)]
    return {"pixel_values": _random(generator, sum(images), 3, side, side), "image_sizes": sizes}


def framed(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Images padded to one size, a list for each sample, with masks of their pixels (Idefics)."""
    side, shape = _side(config), (len(images), images[0])
    return {
        "pixel_values": _random(generator, *shape, 3, side, side),
        "pixel_attention_mask": torch.ones(*shape, side, side, dtype=torch.bool),
    }


def tiled(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Tiles of one size, a list for each sample, with a mask that says which are there (Granite Docling)."""
    side, shape = _side(config), (len(images), images[0])
    return {
        "pixel_values": _random(generator, *shape, 3, side, side),
        "pixel_attention_mask": torch.ones(*shape, dtype=torch.bool),
    }


def high_and_low(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Images of one size, and again in a larger one (DeepSeek-VL)."""
    side = config.high_res_vision_config.image_size
    high = _random(generator, sum(images), 3, side, side)
    return {**squares(config, images, generator), "high_res_pixel_values": high}


def merged_squares(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """All groups of patches that become one token, each a small image with its channels last (Inkling 2)."""
    tower, grids = tower_of(config), GRIDS[: sum(images)]
    merge = tower.spatial_merge_size
    side, groups = merge * tower.patch_size, int(grids.prod(1).sum()) // merge**2
    merged = grids // torch.tensor([1, merge, merge])
    return {"pixel_values": _random(generator, groups, side, side, 3), "image_grid_thw": merged}


def patches_in_a_plane(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Flattened patches, with the rows and columns of each image (Nemotron)."""
    width, grids = 3 * tower_of(config).patch_size ** 2, GRIDS[: sum(images), 1:]
    return {"pixel_values": _random(generator, int(grids.prod(1).sum()), width), "image_grid_hw": grids}


def placed_patches(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Flattened patches padded to one count, each with its column and row (Gemma 4)."""
    tower = tower_of(config)
    side = getattr(tower, "model_patch_size", tower.patch_size)
    columns, rows = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="xy")
    places = torch.stack((columns.flatten(), rows.flatten()), dim=1)
    return {
        "pixel_values": _random(generator, sum(images), len(places), 3 * side**2),
        "image_position_ids": places.expand(sum(images), -1, -1),
    }


def discrete(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Images that become words of a codebook, with their sizes (Emu 3, Apertus 1.5)."""
    sizes = torch.tensor([[32, 32], [32, 16]])[: sum(images)]
    return {"pixel_values": _random(generator, sum(images), 3, 32, 32), "image_sizes": sizes}


def bare_patches(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Flattened patches of images of one size, which no tower reads (Fuyu)."""
    return {"pixel_values": _random(generator, sum(images), 16, 3 * config.patch_size**2)}


def pooled_patches(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Crops as flattened patches, and which four of them each token pools (Molmo 2)."""
    grids = torch.tensor([[2, 2, 2, 4], [2, 2, 2, 2]])[: sum(images)]
    tokens = int((grids[:, 0] * grids[:, 1] + grids[:, 2] * grids[:, 3]).sum())
    pooled = torch.arange(4 * tokens).view(tokens, 4) % (16 * sum(images))
    patches = _random(generator, sum(images), 16, 3 * tower_of(config).patch_size ** 2)
    return {"pixel_values": patches, "image_token_pooling": pooled, "image_grids": grids}


def cut(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Tiles of one size, one for each image (PerceptionLM)."""
    return {"pixel_values": _random(generator, len(images), images[0], 3, 16, 16)}


def large_squares(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Images large enough for a tower that halves them five times."""
    return {"pixel_values": _random(generator, sum(images), 3, 128, 128)}


def with_question(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Images of one size, and a question for the transformer that reads them (InstructBLIP)."""
    question = torch.randint(3, 60, (sum(images), 5), generator=generator)
    return {**squares(config, images, generator), "qformer_input_ids": question}


def packed(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """All images side by side in one strip of patches (MiniCPM-V)."""
    side, sizes = tower_of(config).patch_size, torch.tensor([[8, 8], [8, 8]], dtype=torch.int32)[: sum(images)]
    strip = _random(generator, 1, 3, side, side * int(sizes.prod(1).sum()))
    return {"pixel_values": strip, "target_sizes": sizes}


def padded_patches(config: Any, images: Sequence[int], generator: torch.Generator) -> Media:
    """Flattened patches padded to one count, with the shape and mask of each image (SigLIP 2)."""
    width = 3 * tower_of(config).patch_size ** 2
    return {
        "pixel_values": _random(generator, sum(images), 16, width),
        "spatial_shapes": torch.tensor([[4, 4]] * sum(images)),
        "pixel_attention_mask": torch.ones(sum(images), 16, dtype=torch.long),
    }


MAKERS: dict[str, Maker] = {
    "kimi_k25": square_patches,
    "paddleocr_vl": square_patches,
    "video_llama_3": merged_patches,
    **dict.fromkeys(("minicpmv4_6", "minicpmv4_7", "minicpm_ocr"), packed),
    **dict.fromkeys(("llava", "vipllava"), squares),
    "granite_docling": tiled,
    "deepseek_vl_hybrid": high_and_low,
    **dict.fromkeys(("inkling2", "inkling2_loop"), merged_squares),
    "nemotron_h_omni": patches_in_a_plane,
    "instructblip": with_question,
    **dict.fromkeys(("emu3", "apertus1p5"), discrete),
    "fuyu": bare_patches,
    "molmo2": pooled_patches,
    "perception_lm": cut,
    **dict.fromkeys(("fast_vlm", "gemma3n"), large_squares),
    **dict.fromkeys(("gemma4", "gemma4_unified", "diffusion_gemma"), placed_patches),
    "lfm2_vl": padded_patches,
    **dict.fromkeys(("mistral3", "lighton_ocr", "mistral_large4"), sized),
    **dict.fromkeys(("lfm3_vl", "minimax_m3_vl"), patches),
}
"""How images are laid out where the arguments of the model do not say it."""

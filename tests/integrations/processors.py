"""Pictures that know where they are, and miniatures of the models' front ends and processors, all made offline."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    LlavaNextConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

WORDS = "[PAD] [UNK] </s> <image> <video> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|> <|im_start|> "
WORDS += "<|im_end|> user assistant a the what where is this that picture shows red green house ball sky , . ?"
IDS = {word: number for number, word in enumerate(WORDS.split())}
TEXT = {
    "vocab_size": len(IDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "eos_token_id": 2,
}

# What the stand-in for the learned newline holds in every channel; no pixel has it.
NEWLINE = -5.0


def onevision_config(side: int = 30, patch: int = 4, widest: int = 6) -> LlavaOnevisionConfig:
    """LLaVA-OneVision whose view leaves a rim that no patch sees, as SigLIP's 384 pixels do with patches of 14."""
    vision = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 1, "image_size": side, "patch_size": patch, "vision_use_head": False}
    crops = range(side, widest * side + 1, side)
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=IDS["<image>"],
        video_token_index=IDS["<video>"],
        image_grid_pinpoints=[list(pair) for pair in itertools.product(crops, crops)],
    )


def next_config() -> LlavaNextConfig:
    """LLaVA-NeXT with CLIP's class token and the five shapes of its checkpoints."""
    vision = {"model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 1, "image_size": 28, "patch_size": 4}
    return LlavaNextConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IDS["<image>"],
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]],
    )


def qwen2_vl_config() -> Qwen2VLConfig:
    """Qwen2-VL with patches of four pixels."""
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 1, "patch_size": 4}
    return Qwen2VLConfig(vision_config=vision, **_qwen_text())


def qwen2_5_vl_config() -> Qwen2_5_VLConfig:
    """Qwen2.5-VL with windows of two merged patches, so that its reordering has something to do."""
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 1, "patch_size": 4}
    vision |= {"window_size": 16, "out_hidden_size": 16, "fullatt_block_indexes": [0]}
    return Qwen2_5_VLConfig(vision_config=vision, **_qwen_text())


def _qwen_text() -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    return {
        "text_config": {**TEXT, "rope_parameters": rope},
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
    }


def word_tokenizer(others: Mapping[str, int] | None = None) -> PreTrainedTokenizerFast:
    """Tokenizer over a list of words, split at spaces and punctuation; placeholders are single tokens.

    `others` are words with ids of their own.
    """
    words = IDS | dict(others or {})
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [word for word in words if word.startswith("<") and word != "</s>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="</s>",
        additional_special_tokens=special,
        padding_side="left",
    )


def coordinate_picture(height: int, width: int, mark: float = 1.0) -> Image.Image:
    """Picture whose red is the distance from the left, green from the top, blue `mark`, each from 0 to 1."""
    pixels = np.empty((height, width, 3))
    pixels[..., 0] = (np.arange(width) + 0.5) / width
    pixels[..., 1] = (np.arange(height)[:, None] + 0.5) / height
    pixels[..., 2] = mark
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


class _MeanColours(nn.Module):
    """Stand-in for a vision tower of square views: a patch's feature is its mean colour."""

    def __init__(self, patch: int, class_tokens: int) -> None:
        super().__init__()
        self.patch, self.class_tokens = patch, class_tokens

    def forward(self, pixel_values: torch.Tensor, **_: object) -> BaseModelOutputWithPooling:
        means = nn.functional.avg_pool2d(pixel_values, self.patch).flatten(2).transpose(1, 2)
        states = nn.functional.pad(means, (0, 0, self.class_tokens, 0))
        return BaseModelOutputWithPooling(last_hidden_state=states, hidden_states=(states, states))


class _MeanOfPatch(nn.Module):
    """Stand-in for Qwen's patch embedding: the mean colour of the flattened patches."""

    def __init__(self) -> None:
        super().__init__()
        # The tower reads its dtype off its first parameter.
        self.dtype_bearer = nn.Parameter(torch.zeros(1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.view(len(hidden_states), 3, -1).mean(dim=2)


class _MeanOfFour(nn.Module):
    """Stand-in for Qwen's merger, which joins four neighbouring patches."""

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return x.view(-1, 4, x.shape[-1]).mean(dim=1)


def show_colours(model: PreTrainedModel) -> PreTrainedModel:
    """Put mean colours in place of learned features; cutting, ordering, unpadding and pooling stay the model's own."""
    inner = model.model
    if hasattr(inner, "visual"):
        inner.visual.patch_embed = _MeanOfPatch()
        inner.visual.blocks = nn.ModuleList()
        inner.visual.merger = _MeanOfFour()
        return model
    vision = model.config.vision_config
    inner.vision_tower = _MeanColours(vision.patch_size, class_tokens=int(vision.model_type == "clip_vision_model"))
    inner.multi_modal_projector = nn.Identity()
    inner.image_newline = nn.Parameter(torch.full((3,), NEWLINE))
    return model


def image_processor(config: PreTrainedConfig) -> Any:
    """Image processor of the family that needs Pillow only, without normalisation and with padding left black."""
    family = config.model_type.replace("qwen2_5_vl", "qwen2_vl")
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    if family == "qwen2_vl":
        size = {"shortest_edge": 16 * 16, "longest_edge": 120 * 120}
        return module.Qwen2VLImageProcessorPil(size=size, patch_size=config.vision_config.patch_size, **plain)
    side, points = config.vision_config.image_size, config.image_grid_pinpoints
    if family == "llava_next":
        sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        return module.LlavaNextImageProcessorPil(image_grid_pinpoints=points, **sizes, **plain)
    sizes = {"size": {"height": side, "width": side}}
    return module.LlavaOnevisionImageProcessorPil(image_grid_pinpoints=points, **sizes, **plain)


class _PillowOnly:
    """A processor of the library without its video half, the part that needs torchvision."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.image_processor, self.tokenizer = image_processor(config), word_tokenizer()
        for kind in ("image", "video"):
            token_id = getattr(config, f"{kind}_token_id")
            setattr(self, f"{kind}_token_id", token_id)
            setattr(self, f"{kind}_token", self.tokenizer.convert_ids_to_tokens(token_id))
        self.chat_template = None
        self.vision_aspect_ratio, self.vision_feature_select_strategy = "anyres_max_9", "full"
        if hasattr(config.vision_config, "image_size"):
            self.num_image_tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2


class PillowOnevisionProcessor(_PillowOnly, LlavaOnevisionProcessor):
    """LLaVA-OneVision's processor for images and text."""


class PillowQwenProcessor(_PillowOnly, Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor for images and text."""


def qwen_video(processor: Any, frames: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Frames of an even count as Qwen's video processor lays them out: patches of two frames, channel first."""
    flat = []
    for frame in frames:
        encoded = processor(images=[frame], return_tensors="pt")
        patches = encoded["pixel_values"].view(len(encoded["pixel_values"]), 3, 2, -1)
        flat.append(patches[:, :, 0])
    pairs = [torch.stack(pair, dim=2).flatten(1) for pair in zip(flat[::2], flat[1::2], strict=True)]
    _, rows, columns = encoded["image_grid_thw"][0].tolist()
    return {
        "pixel_values_videos": torch.cat(pairs),
        "video_grid_thw": torch.tensor([[len(pairs), rows, columns]]),
    }


def square_video(side: int, frames: Sequence[Image.Image]) -> torch.Tensor:
    """Frames as LLaVA-OneVision's video processor lays them out, shape (1, frames, 3, side, side)."""
    shrunk = [np.asarray(frame.resize((side, side), Image.Resampling.BICUBIC)) / 255 for frame in frames]
    return torch.tensor(np.stack(shrunk), dtype=torch.float32).permute(0, 3, 1, 2)[None]


def sentence(*parts: tuple[int, int]) -> list[int]:
    """Token ids of runs (id, length), each run between two words."""
    ids = [IDS["the"]]
    for token, length in parts:
        ids += [token] * length + [IDS["a"]]
    return ids


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Batch of ids, padded at the left."""
    longest = max(map(len, rows))
    return torch.tensor([[IDS["[PAD]"]] * (longest - len(row)) + list(row) for row in rows])


def colour_features(features: torch.Tensor) -> NDArray[np.float64]:
    """Features of `show_colours` as an array of shape (tokens, 3)."""
    return features.detach().double().reshape(-1, 3).numpy()


def whole_processor(config: PreTrainedConfig, chat_template: str | None = None) -> Any:
    """Processor of the family with its video half, which needs torchvision."""
    plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    if config.model_type == "llava_onevision":
        plain |= {"size": {"height": config.vision_config.image_size, "width": config.vision_config.image_size}}
        return LlavaOnevisionProcessor(
            LlavaOnevisionImageProcessor(image_grid_pinpoints=config.image_grid_pinpoints, **plain),
            word_tokenizer(),
            LlavaOnevisionVideoProcessor(**plain),
            num_image_tokens=(config.vision_config.image_size // config.vision_config.patch_size) ** 2,
            vision_feature_select_strategy="full",
            chat_template=chat_template,
        )
    plain |= {"size": {"shortest_edge": 16 * 16, "longest_edge": 120 * 120}}
    patch = config.vision_config.patch_size
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(patch_size=patch, **plain),
        word_tokenizer(),
        Qwen2VLVideoProcessor(patch_size=patch, cap_pixels_per_frame=False, **plain),
        chat_template=chat_template,
    )


def llava_processor(config: PreTrainedConfig) -> Any:
    """Processor of LLaVA-1.5, which needs Pillow only; placeholders have the id that the configuration names."""
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    tokenizer = word_tokenizer({"<image>": config.image_token_id})
    return LlavaProcessor(CLIPImageProcessorPil(**sizes), tokenizer, patch, "default", num_additional_image_tokens=1)

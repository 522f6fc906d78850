"""Vision-language models of published shapes with random weights, and inputs with so many visual tokens exactly."""

from dataclasses import dataclass, field, replace
from functools import wraps
from math import isqrt
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

QWEN2_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
}
SIGLIP_SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
QWEN2_5_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "out_hidden_size": 3584,
}
WORDS_BEFORE = 14
"""Text tokens in front of the picture."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's family and sizes; the ids are those of the placeholder and of what stands in front of it."""

    family: str
    text: dict[str, Any]
    vision: dict[str, Any]
    image_id: int
    vision_start_id: int
    pinpoints: list[list[int]] | None = field(default=None)

    @property
    def is_qwen(self) -> bool:
        """Whether the tower reads patches at native resolution, and not crops."""
        return "qwen" in self.family.lower()

    def config(self) -> Any:
        """Return the configuration that Transformers builds the model from."""
        tied = {"tie_word_embeddings": False, "image_token_id": self.image_id, "video_token_id": self.image_id + 1}
        if self.is_qwen:
            ids = {"vision_start_token_id": self.vision_start_id}
            return transformers.Qwen2_5_VLConfig(
                text_config=dict(self.text), vision_config=dict(self.vision), **tied, **ids
            )
        return transformers.LlavaOnevisionConfig(
            text_config={"model_type": "qwen2", **self.text},
            vision_config=dict(self.vision),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_token_index=tied.pop("image_token_id"),
            video_token_index=tied.pop("video_token_id"),
            image_grid_pinpoints=self.pinpoints,
            **tied,
        )


PUBLISHED = (
    Shape(family="LLaVA-OneVision-7B", text=QWEN2_7B, vision=SIGLIP_SO400M, image_id=151646, vision_start_id=151652),
    Shape(
        family="Qwen2.5-VL-7B",
        text={
            **QWEN2_7B,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision=QWEN2_5_TOWER,
        image_id=151655,
        vision_start_id=151652,
    ),
)

_TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TINY_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_TINY_TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}

TINY = (
    replace(
        PUBLISHED[0],
        family="LLaVA-OneVision, tiny",
        text={**QWEN2_7B, **_TINY},
        vision={**SIGLIP_SO400M, **_TINY_TOWER, "image_size": 16, "patch_size": 4},
        image_id=90,
        vision_start_id=92,
        pinpoints=[[16, 32], [32, 16], [32, 32]],
    ),
    replace(
        PUBLISHED[1],
        family="Qwen2.5-VL, tiny",
        text={**QWEN2_7B, **_TINY, "rope_parameters": _TINY_ROPE},
        vision={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        image_id=90,
        vision_start_id=92,
    ),
)
"""The same families in miniature, for a rehearsal."""


def build(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a model with random weights, made on the device, with SDPA attention."""
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(
            shape.config(), dtype=dtype, attn_implementation="sdpa"
        )
    # Whatever random weights say, a measured answer has the length that was asked for.
    model.generation_config.eos_token_id = None
    return model.train(False)


def grid(tokens: int) -> tuple[int, int]:
    """Return the rows and columns of a picture of so many tokens, as near to a square as they divide."""
    rows = next(rows for rows in range(isqrt(tokens), 0, -1) if tokens % rows == 0)
    return rows, tokens // rows


def picture(model: Any, shape: Shape, tokens: int) -> dict[str, Any]:
    """Return the arguments of `get_image_features` for a random picture of at least so many tokens.

    Qwen2.5-VL reads one picture of just so many. LLaVA-OneVision's crops come in wholes, so it gets several square
    pictures of one crop each, and the surplus is cut off afterwards.
    """
    device, dtype, vision = model.device, model.dtype, model.config.vision_config
    if shape.is_qwen:
        rows, columns = grid(tokens)
        merge, patch = vision.spatial_merge_size, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        sides = torch.tensor([[1, rows * merge, columns * merge]], device=device)
        patches = torch.randn(rows * columns * merge**2, patch, device=device, dtype=dtype)
        return {"pixel_values": patches, "image_grid_thw": sides}
    side = vision.image_size
    crops = max(2, -(-tokens // ((side // vision.patch_size) ** 2 + 1)))  # a newline ends each
    pixels = torch.randn(crops, 1, vision.num_channels, side, side, device=device, dtype=dtype)
    sizes = torch.tensor([[side, side]] * crops, device=device)
    return {"pixel_values": pixels, "image_sizes": sizes, "batch_num_images": torch.tensor([crops])}


def encode(model: Any, shape: Shape, tokens: int) -> Tensor:
    """Run the vision tower on a random picture, and return the features of so many tokens (N, E)."""
    with torch.no_grad():
        found = model.model.get_image_features(**picture(model, shape, tokens), return_dict=True)
    return torch.cat(list(found.pooler_output))[:tokens]


def feed(model: Any, features: Tensor, batch: int) -> None:
    """Let the model see these features, for every sample of a batch, in place of encoding a picture anew.

    What is measured is the decoder's prefill; the tower does the same work whether tokens are dropped or not.
    """
    inner = model.model
    inner.__dict__.pop("get_image_features", None)

    @wraps(inner.get_image_features)
    def encoded(*_args: Any, **_kwargs: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(pooler_output=[features] * batch)

    inner.get_image_features = encoded


def inputs(model: Any, shape: Shape, tokens: int, text: int, batch: int) -> dict[str, Any]:
    """Return a batch of prompts: some words, a picture of so many tokens, a question; `text` words in all."""
    generator = torch.Generator().manual_seed(tokens)
    words = min(shape.image_id, shape.vision_start_id)
    ids = torch.randint(3, words, (batch, text + tokens), generator=generator)
    ids[:, WORDS_BEFORE - 1] = shape.vision_start_id
    ids[:, WORDS_BEFORE : WORDS_BEFORE + tokens] = shape.image_id
    prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if shape.is_qwen:
        rows, columns = grid(tokens)
        merge = model.config.vision_config.spatial_merge_size
        prompt["image_grid_thw"] = torch.tensor([[1, rows * merge, columns * merge]] * batch)
        prompt["mm_token_type_ids"] = (ids == shape.image_id).int()
    else:
        prompt["image_sizes"] = torch.tensor([[1, 1]] * batch)
    # The pixels themselves are not read: see `feed`.
    prompt["pixel_values"] = torch.zeros(batch, 1)
    return {name: part.to(model.device) for name, part in prompt.items()}

"""Random miniatures of the supported families, and inputs for them, built without a processor or a download."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from iwp_transformers.versions import CACHE_ARGUMENT
from tests.integrations.built_once import built_once

CACHE = CACHE_ARGUMENT
IMAGE_ID, VIDEO_ID, PAD_ID, VISION_START, VISION_END = 90, 91, 0, 92, 93
LAYERS = 4
TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": PAD_ID,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
CROP, PATCH = 16, 4
PINPOINTS = [[16, 32], [32, 16], [32, 32]]
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


@dataclass(frozen=True)
class Image:
    """An image of so many pixels, or so many patches where the family counts those."""

    height: int = 24
    width: int = 32


@dataclass(frozen=True)
class Video:
    """A video of so many frames."""

    frames: int = 2


Prompt = Sequence[int | Image | Video]


@built_once
def llava_onevision(tower_layers: int = 1, **text: Any) -> nn.Module:
    """Return LLaVA-OneVision on a SigLIP tower and Qwen2."""
    config = transformers.LlavaOnevisionConfig(
        vision_config=_tower("siglip_vision_model") | {"num_hidden_layers": tower_layers},
        text_config={"model_type": "qwen2", **TEXT, **text},
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return seeded(transformers.LlavaOnevisionForConditionalGeneration(config))


@built_once
def llava_next(**text: Any) -> nn.Module:
    """Return LLaVA-NeXT on a CLIP tower and Llama."""
    config = transformers.LlavaNextConfig(
        vision_config=_tower("clip_vision_model"),
        text_config={"model_type": "llama", **TEXT, **text},
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    return seeded(transformers.LlavaNextForConditionalGeneration(config))


@built_once
def qwen2_5_vl(tower_layers: int = 1, **text: Any) -> nn.Module:
    """Return Qwen2.5-VL."""
    vision = {"depth": tower_layers, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": PATCH, "window_size": 16, "fullatt_block_indexes": list(range(tower_layers))}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": MROPE, **text}, vision_config=vision, **_qwen_tokens()
    )
    return seeded(transformers.Qwen2_5_VLForConditionalGeneration(config))


@built_once
def qwen2_vl(**text: Any) -> nn.Module:
    """Return Qwen2-VL."""
    vision = {"depth": 1, "embed_dim": 16, "mlp_ratio": 2, "num_heads": 2, "hidden_size": 32, "patch_size": PATCH}
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": MROPE, **text}, vision_config=vision, **_qwen_tokens()
    )
    return seeded(transformers.Qwen2VLForConditionalGeneration(config))


FACTORIES = {
    "llava-onevision": llava_onevision,
    "llava-next": llava_next,
    "qwen2.5-vl": qwen2_5_vl,
    "qwen2-vl": qwen2_vl,
}


def seeded(model: nn.Module) -> nn.Module:
    """Give a model weights under which attention is sharp, keys are biased and every token matters."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        scale = 0.6 if "q_proj" in name or "k_proj" in name else 0.3
        if "norm" in name and name.endswith("weight"):
            continue
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    # Whatever the random weights would stop at, a test decides for itself how long it decodes.
    model.generation_config.eos_token_id = None
    # A placeholder among the decoded tokens would count as a missing image when the whole text is run again.
    model.generation_config.suppress_tokens = [IMAGE_ID, VIDEO_ID, VISION_START, PAD_ID]
    return model.eval()


def _tower(kind: str) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {"model_type": kind, "image_size": CROP, "patch_size": PATCH, **sizes}


def _qwen_tokens() -> dict[str, Any]:
    return {
        "image_token_id": IMAGE_ID,
        "video_token_id": VIDEO_ID,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
        "tie_word_embeddings": False,
    }


@dataclass
class _Batch:
    """Collects media while samples are written down."""

    model: nn.Module
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(11))
    images: list[Image] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
    images_per_sample: list[int] = field(default_factory=list)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def text(self, length: int) -> list[int]:
        return torch.randint(3, IMAGE_ID, (length,), generator=self.generator).tolist()


def make_inputs(model: nn.Module, prompts: Sequence[Prompt], padding: str = "left") -> dict[str, Any]:
    """Return what a processor would for some prompts.

    An int stands for so many text tokens. The same seed gives the same media and text whatever the padding.
    """
    batch = _Batch(model)
    build = _qwen_media if "Qwen" in type(model).__name__ else _llava_media
    for prompt in prompts:
        batch.images += [part for part in prompt if isinstance(part, Image)]
        batch.videos += [part for part in prompt if isinstance(part, Video)]
        batch.images_per_sample.append(sum(isinstance(part, Image) for part in prompt))
    media, image_lengths, video_lengths = build(batch)
    lengths = {Image: iter(image_lengths), Video: iter(video_lengths)}
    ids = {Image: IMAGE_ID, Video: VIDEO_ID}
    # Qwen's `generate` counts a sample's media by the token in front of each.
    before = [VISION_START] if "Qwen" in type(model).__name__ else []
    rows = []
    for prompt in prompts:
        row: list[int] = []
        for part in prompt:
            row += batch.text(part) if isinstance(part, int) else before + [ids[type(part)]] * next(lengths[type(part)])
        rows.append(row)
    inputs = pad(rows, padding)
    if "Qwen" in type(model).__name__:
        kinds = inputs["input_ids"]
        inputs["mm_token_type_ids"] = (kinds == IMAGE_ID).int() + 2 * (kinds == VIDEO_ID).int()
    return inputs | media


def pad(rows: Sequence[Sequence[int]], side: str) -> dict[str, Tensor]:
    """Return ids and mask of rows padded on a side."""
    width = max(map(len, rows))
    fills = [[PAD_ID] * (width - len(row)) for row in rows]
    ids = [fill + list(row) if side == "left" else list(row) + fill for fill, row in zip(fills, rows, strict=True)]
    ones = [
        [0] * len(fill) + [1] * len(row) if side == "left" else [1] * len(row) + [0] * len(fill)
        for fill, row in zip(fills, rows, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(ones)}


def _llava_media(batch: _Batch) -> tuple[dict[str, Any], list[int], list[int]]:
    media: dict[str, Any] = {}
    image_lengths: list[int] = []
    video_lengths: list[int] = []
    if batch.images:
        media["pixel_values"] = batch.random(len(batch.images), 5, 3, CROP, CROP)
        media["image_sizes"] = torch.tensor([(image.height, image.width) for image in batch.images])
        if "Onevision" in type(batch.model).__name__:
            media["batch_num_images"] = torch.tensor(batch.images_per_sample)
        with torch.no_grad():
            features = batch.model.get_image_features(**media, return_dict=True).pooler_output
        image_lengths = [len(feature) for feature in features]
    if batch.videos:
        frames = batch.videos[0].frames
        media["pixel_values_videos"] = batch.random(len(batch.videos), frames, 3, CROP, CROP)
        # Frames of 4 x 4 patches are pooled to 2 x 2, and one newline ends the video.
        video_lengths = [frames * 4 + 1] * len(batch.videos)
    return media, image_lengths, video_lengths


def _qwen_media(batch: _Batch) -> tuple[dict[str, Any], list[int], list[int]]:
    media: dict[str, Any] = {}
    lengths: dict[str, list[int]] = {"image": [], "video": []}
    width = 3 * 2 * PATCH**2
    grids = {
        "image": [(1, image.height // PATCH, image.width // PATCH) for image in batch.images],
        "video": [(video.frames, 4, 4) for video in batch.videos],
    }
    for name, suffix in (("image", ""), ("video", "_videos")):
        if grids[name]:
            grid = torch.tensor(grids[name])
            media[f"{name}_grid_thw"] = grid
            media[f"pixel_values{suffix}"] = batch.random(int(grid.prod(1).sum()), width)
            lengths[name] = (grid.prod(1) // 4).tolist()
    return media, lengths["image"], lengths["video"]

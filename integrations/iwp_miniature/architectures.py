"""The two miniatures: genuine Transformers classes at a size that a CPU trains, and how pictures become their input."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from iwp_miniature.scenes import CELL
from iwp_miniature.vocabulary import BEGIN, END, IMAGE, PAD, VIDEO, VISION_END, VISION_START, WORDS

__all__ = ["ARCHITECTURES", "Architecture", "Patch", "architecture"]

HEAD_WIDTH = 32
DECODER = {
    "vocab_size": len(WORDS),
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
    "pad_token_id": WORDS.index(PAD),
    "bos_token_id": WORDS.index(BEGIN),
    "eos_token_id": WORDS.index(END),
}
"""The text stack of both: 8 layers, grouped-query attention."""

MEAN_AND_STD: dict[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@dataclass(frozen=True)
class Patch:
    """What a visual token looks at.

    Parameters
    ----------
    x, y : float
        Centre, in pixels of the picture.
    knows_place : bool
        Whether the tower can tell where in the picture it lies. A crop looks the same wherever it was cut, and Qwen's
        tower has no absolute positions: there the decoder's positions have to tell.
    """

    x: float
    y: float
    knows_place: bool


class Architecture(ABC):
    """A miniature architecture: its model class, its processor, and how pictures become its input.

    Attributes
    ----------
    name : str
        Name on the command line, and of the folder with the shipped weights.
    grids : tuple of (int, int)
        Rows and columns of the pictures that it is trained on.
    any_digit : float
        Share of the training layouts in which any digit may stand, 0 to 1; see `draw_layout`.
    model_class : type
        Class of Transformers of the model.
    processor_class : str
        Name of the class of Transformers that makes the model's inputs.
    processor_options : dict
        Further arguments of that class.
    """

    name: str
    grids: tuple[tuple[int, int], ...]
    any_digit: float
    model_class: Any
    processor_class: str
    processor_options: ClassVar[dict[str, Any]]

    @abstractmethod
    def random_model(self) -> Any:
        """Make a model with weights from torch's random generator."""

    @cached_property
    @abstractmethod
    def image_processor(self) -> Any:
        """Its image processor, the one that needs no torchvision."""

    @abstractmethod
    def prompt(self, visual: str) -> list[str]:
        """Return the words before a question, given the placeholders of the picture as one word each."""

    @abstractmethod
    def patches(self, pixels: Mapping[str, Tensor]) -> list[Patch | None]:
        """Say what each visual token of the first of some encoded pictures looks at; None for separators."""


class LlavaOnevision(Architecture):
    """LLaVA-OneVision: a SigLIP tower that sees a shrunken view and four crops, and a Qwen2 decoder."""

    name = "llava-onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    grids = ((4, 4),)
    any_digit = 0.5

    VIEW = 2 * CELL
    PATCH = 8

    processor_class = "LlavaOnevisionProcessor"
    processor_options: ClassVar[dict[str, Any]] = {
        "num_image_tokens": (VIEW // PATCH) ** 2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    }

    def random_model(self) -> Any:
        vision = {
            "model_type": "siglip_vision_model",
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": self.VIEW,
            "patch_size": self.PATCH,
            "vision_use_head": False,
        }
        text = {"model_type": "qwen2", **DECODER, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
        config = LlavaOnevisionConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=WORDS.index(IMAGE),
            video_token_index=WORDS.index(VIDEO),
            image_grid_pinpoints=[[2 * self.VIEW, 2 * self.VIEW]],
            tie_word_embeddings=True,
        )
        model = self.model_class(config)
        _spread_positions(model.model.vision_tower.embeddings.position_embedding.weight, self.VIEW // self.PATCH)
        for layer in model.model.vision_tower.encoder.layers:
            layer.self_attn.k_proj.weight.data.copy_(layer.self_attn.q_proj.weight.data)
        return model

    @cached_property
    def image_processor(self) -> Any:
        return LlavaOnevisionImageProcessorPil(
            size={"height": self.VIEW, "width": self.VIEW},
            image_grid_pinpoints=[[2 * self.VIEW, 2 * self.VIEW]],
            **MEAN_AND_STD,
        )

    def prompt(self, visual: str) -> list[str]:
        return [BEGIN, visual]

    def patches(self, pixels: Mapping[str, Tensor]) -> list[Patch | None]:
        height, width = pixels["image_sizes"][0].tolist()
        side = self.VIEW // self.PATCH
        rows, columns = _unpadded(height, width, 2 * side)
        patches: list[Patch | None] = [*_even_patches(side, side, height, width, knows_place=True)]
        fine = [*_even_patches(rows, columns, height, width, knows_place=False)]
        for row in range(rows):
            patches += [*fine[row * columns : (row + 1) * columns], None]
        return patches


class Qwen25VL(Architecture):
    """Qwen2.5-VL: a tower at native resolution whose windows are the cells of the grid, and multimodal positions."""

    name = "qwen2.5-vl"
    model_class = Qwen2_5_VLForConditionalGeneration
    grids = ((4, 4), (3, 4), (4, 3), (3, 5), (5, 3), (4, 5), (5, 4))
    any_digit = 0.0

    PATCH, MERGE = 4, 2

    processor_class = "Qwen2_5_VLProcessor"
    processor_options: ClassVar[dict[str, Any]] = {}

    def random_model(self) -> Any:
        vision = {
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 3,
            "out_hidden_size": DECODER["hidden_size"],
            "patch_size": self.PATCH,
            "spatial_merge_size": self.MERGE,
            "window_size": CELL,
            "fullatt_block_indexes": [2],
            "initializer_range": 0.05,
        }
        # With this base neighbouring columns differ, while the slowest channels hardly turn across a picture: as in a
        # large model, products of queries and keys mean something without rotary embedding too.
        rope = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 4, 10]}
        config = Qwen2_5_VLConfig(
            text_config={**DECODER, "rope_parameters": rope},
            vision_config=vision,
            image_token_id=WORDS.index(IMAGE),
            video_token_id=WORDS.index(VIDEO),
            vision_start_token_id=WORDS.index(VISION_START),
            vision_end_token_id=WORDS.index(VISION_END),
            tie_word_embeddings=True,
        )
        model = self.model_class(config)
        for block in model.model.visual.blocks:
            width = block.attn.proj.weight.shape[0]
            block.attn.qkv.weight.data[width : 2 * width] = block.attn.qkv.weight.data[:width]
        return model

    @cached_property
    def image_processor(self) -> Any:
        return Qwen2VLImageProcessorPil(
            size={"shortest_edge": (2 * CELL) ** 2, "longest_edge": (6 * CELL) ** 2},
            patch_size=self.PATCH,
            merge_size=self.MERGE,
            temporal_patch_size=2,
            **MEAN_AND_STD,
        )

    def prompt(self, visual: str) -> list[str]:
        return [BEGIN, VISION_START, visual, VISION_END]

    def patches(self, pixels: Mapping[str, Tensor]) -> list[Patch | None]:
        _, rows, columns = pixels["image_grid_thw"][0].tolist()
        size = (rows * self.PATCH, columns * self.PATCH)
        return [*_even_patches(rows // self.MERGE, columns // self.MERGE, *size, knows_place=False)]


ARCHITECTURES: dict[str, Architecture] = {item.name: item for item in (LlavaOnevision(), Qwen25VL())}


def architecture(name: str) -> Architecture:
    """Return the architecture of a name.

    Parameters
    ----------
    name : {"llava-onevision", "qwen2.5-vl"}

    Returns
    -------
    Architecture

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in ARCHITECTURES:
        msg = f"`name` is {name!r}, expected one of {', '.join(map(repr, ARCHITECTURES))}"
        raise ValueError(msg)
    return ARCHITECTURES[name]


def _even_patches(rows: int, columns: int, height: float, width: float, *, knows_place: bool) -> Iterator[Patch]:
    """Cut a picture into equal patches."""
    for row in range(rows):
        for column in range(columns):
            yield Patch((column + 0.5) * width / columns, (row + 0.5) * height / rows, knows_place)


def _unpadded(height: int, width: int, side: int) -> tuple[int, int]:
    """Return rows and columns of a square grid that are left when a picture's padding to a square is cut off."""
    # The model rounds to 7 digits before it cuts, and pads both sides alike.
    inner_rows = int(round(height * side / width, 7)) if width > height else side
    inner_columns = int(round(width * side / height, 7)) if height > width else side
    return side - (side - inner_rows) // 2 * 2, side - (side - inner_columns) // 2 * 2


def _spread_positions(table: nn.Parameter, side: int) -> None:
    """Fill a table of positions, shape (side * side, E), with sines and cosines of row and column."""
    quarter = table.shape[1] // 4
    phases = torch.arange(side)[:, None] * 1.2 * 30.0 ** (-torch.arange(quarter) / quarter)
    waves = torch.cat([phases.sin(), phases.cos()], dim=1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    table.data.copy_(torch.cat([rows, columns], dim=-1).reshape(side * side, -1))

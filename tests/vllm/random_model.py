"""A random Qwen2.5-VL of 12 layers, larger than the miniatures, with their words and pictures."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from iwp_miniature import load_miniature
from tests.vllm.miniatures import Trained

LARGEST = 512 * 512
"""Pixels of the largest picture."""


def random_model(place: Path) -> Trained:
    """Write 12 layers of width 512 behind a tower of one layer that sees windows only.

    One visual token stands for 8 x 8 pixels.
    """
    miniature = load_miniature("qwen2.5-vl")
    settings = miniature.model.config.to_dict()
    wider = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8}
    positions = {"max_position_embeddings": 4096, "layer_types": ["full_attention"] * 12}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]}
    config = Qwen2_5_VLConfig(
        text_config=settings["text_config"] | wider | positions | {"max_window_layers": 12, "rope_parameters": rope},
        vision_config=settings["vision_config"] | {"depth": 1, "fullatt_block_indexes": [], "out_hidden_size": 512},
        tie_word_embeddings=True,
        **{name: value for name, value in settings.items() if name.endswith("_token_id")},
    )
    torch.manual_seed(0)
    folder = place / "random"
    source = Path(str(files("iwp_miniature"))) / "weights" / "qwen2.5-vl"
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    Qwen2_5_VLForConditionalGeneration(config).eval().save_pretrained(folder)
    processor = json.loads((folder / "processor_config.json").read_text())
    for part in ("image_processor", "video_processor"):
        processor[part]["size"]["longest_edge"] = LARGEST
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return Trained("qwen2.5-vl", folder, miniature, [])

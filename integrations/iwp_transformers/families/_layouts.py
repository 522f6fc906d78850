"""Where the tokens of inferred families look, by type of model: only what a test held to the model's own tower."""

from collections.abc import Mapping

from iwp_transformers.families._family import Family, RegionReader
from iwp_transformers.grids import frame_regions, grid_regions, sized_regions
from iwp_transformers.split_pictures import split_regions
from iwp_transformers.tiles import next_video_regions, tile_regions

__all__ = ["READERS", "VIDEOS_AS_IMAGES", "region_reader"]

VIDEOS_AS_IMAGES = ("glm46v", "glm4v", "glm4v_moe", "glm_ocr", "glmga")
"""Types of models whose videos stand at placeholders of images, a run for each frame (so say their own sources)."""

_GRIDS = (
    "cohere_compass",
    "cosmos3_edge",
    "cosmos3_omni",
    "ernie4_5_vl_moe",
    "exaone4_5",
    "hyperclovax_vision_v2",
    "lfm3_vl",
    "paddleocr_vl",
    "qwen2_5_omni_thinker",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_omni_moe_thinker",
    "qwen3_vl",
    "qwen3_vl_moe",
    "video_llama_3",
)
_TILES = (
    "aya_vision",
    "cohere2_vision",
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "gemma3",
    "granite_docling",
    "internvl",
    "janus",
    "llava",
    "ovis2",
    "paligemma",
    "qianfan_ocr",
    "shieldgemma2",
    "vipllava",
)

READERS: Mapping[str, RegionReader] = {
    **dict.fromkeys(_GRIDS, grid_regions),
    **dict.fromkeys(("glm46v", "glm4v", "glm4v_moe", "glmga"), frame_regions),
    **dict.fromkeys(_TILES, tile_regions),
    **dict.fromkeys(("idefics3", "smolvlm"), split_regions),
    **dict.fromkeys(("mistral3", "lighton_ocr"), sized_regions),
    "llava_next_video": next_video_regions,
}


def region_reader(model_type: str) -> RegionReader:
    """Return what tells where a model's tokens look; where that is not known, it raises NotImplementedError."""
    return READERS.get(model_type, Family.regions)

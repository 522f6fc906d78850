"""Qwen2.5-VL: native resolution, multimodal rotary positions."""

from iwp_transformers.families._family import IMAGE, VIDEO, Family
from iwp_transformers.grids import grid_regions

QWEN2_5_VL = Family(
    models=("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel"),
    media=(IMAGE, VIDEO),
    regions=grid_regions,
)

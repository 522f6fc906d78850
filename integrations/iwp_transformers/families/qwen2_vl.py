"""Qwen2-VL: native resolution, multimodal rotary positions."""

from iwp_transformers.families._family import IMAGE, VIDEO, Family
from iwp_transformers.grids import grid_regions

QWEN2_VL = Family(
    models=("Qwen2VLForConditionalGeneration", "Qwen2VLModel"),
    media=(IMAGE, VIDEO),
    regions=grid_regions,
)

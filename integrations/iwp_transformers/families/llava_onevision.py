"""LLaVA-OneVision: any-resolution crops with newline features, several images, pooled videos."""

from iwp_transformers.families._family import IMAGE, VIDEO, Family
from iwp_transformers.geometry import anyres_regions_onevision

LLAVA_ONEVISION = Family(
    models=("LlavaOnevisionForConditionalGeneration", "LlavaOnevisionModel"),
    media=(IMAGE, VIDEO),
    regions=anyres_regions_onevision,
)

"""LLaVA-NeXT: any-resolution crops with newline features."""

from iwp_transformers.families._family import IMAGE, Family
from iwp_transformers.geometry import anyres_regions_next

LLAVA_NEXT = Family(
    models=("LlavaNextForConditionalGeneration", "LlavaNextModel"),
    media=(IMAGE,),
    regions=anyres_regions_next,
)

"""LLaVA-OneVision with fewer visual tokens, at the positions of the whole prompt."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from vllm.model_executor.models import llava_onevision as original
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from iwp_vllm.directive import whole_length
from iwp_vllm.engine.positions import PlacedModel
from iwp_vllm.engine.processor import PruningProcessor
from iwp_vllm.places import Span, row_places

__all__ = ["PrunedLlavaOnevision"]


class Processor(PruningProcessor, original.LlavaOnevisionMultiModalProcessor):
    """Announces fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=original.LlavaOnevisionProcessingInfo, dummy_inputs=original.LlavaOnevisionDummyInputsBuilder
)
class PrunedLlavaOnevision(PlacedModel, original.LlavaOnevisionForConditionalGeneration, SupportsMRoPE):
    """Plain positions are told to vLLM as multimodal ones, equal on all axes: others it counts by itself.

    `iwp_vllm.places.on_equal_axes` lets the decoder take them.
    """

    def _iwp_places(self, count: int, _arguments: Any) -> Tensor:
        return row_places(count)

    def _iwp_spans(self, mm_features: list[Any]) -> Iterator[Span]:
        for each in sorted(mm_features, key=lambda feature: feature.mm_position.offset):
            place = each.mm_position
            whole = whole_length(each.data)
            yield Span(
                offset=place.offset, length=place.length, places=row_places(place.length if whole is None else whole)
            )

    def _iwp_items(self, arguments: Any) -> int:
        return max(len(value) for name, value in arguments.items() if name.startswith(("pixel", "image_embeds")))

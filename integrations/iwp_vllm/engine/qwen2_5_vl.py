"""Qwen2.5-VL with fewer visual tokens, at the multimodal positions of the whole prompt."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from vllm.model_executor.models import qwen2_5_vl as original
from vllm.multimodal import MULTIMODAL_REGISTRY

from iwp_vllm.engine.positions import PlacedModel
from iwp_vllm.engine.processor import PruningProcessor
from iwp_vllm.places import Span, grid_places

__all__ = ["PrunedQwen25VL"]


class Processor(PruningProcessor, original.Qwen2_5_VLMultiModalProcessor):
    """Announces fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=original.Qwen2_5_VLProcessingInfo, dummy_inputs=original.Qwen2_5_VLDummyInputsBuilder
)
class PrunedQwen25VL(PlacedModel, original.Qwen2_5_VLForConditionalGeneration):
    """Kept tokens have their positions in the whole grid. Text has its positions behind the whole grid."""

    def _iwp_places(self, _count: int, arguments: Any) -> Tensor:
        modality = "image" if "image_grid_thw" in arguments else "video"
        frames, rows, columns = arguments[f"{modality}_grid_thw"][0].tolist()
        merge, step = self.config.vision_config.spatial_merge_size, 1.0
        if modality == "video":
            seconds = arguments.get("second_per_grid_ts")
            step = getattr(self.config.vision_config, "tokens_per_second", 1.0)
            step *= 1.0 if seconds is None else float(seconds[0])
        return grid_places(frames, rows // merge, columns // merge, step)

    def _iwp_spans(self, mm_features: list[Any]) -> Iterator[Span]:
        lengths = {each.mm_position.offset: each.mm_position.length for each in mm_features}
        for offset, frames, rows, columns, step in self.iter_mm_grid_thw(mm_features):
            yield Span(offset=offset, length=lengths[offset], places=grid_places(frames, rows, columns, step))

    def _iwp_items(self, arguments: Any) -> int:
        return max(len(value) for name, value in arguments.items() if name.endswith("_grid_thw"))

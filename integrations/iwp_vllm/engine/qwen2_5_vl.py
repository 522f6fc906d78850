"""Qwen2.5-VL with fewer visual tokens, at the multimodal positions of the whole prompt."""

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import qwen2_5_vl as original
from vllm.multimodal import MULTIMODAL_REGISTRY

from iwp_vllm.engine.model import PruningModel
from iwp_vllm.engine.processor import PruningProcessor
from iwp_vllm.places import AXES, Span, grid_places, prompt_positions, read_places, with_places

__all__ = ["PrunedQwen25VL"]


class Processor(PruningProcessor, original.Qwen2_5_VLMultiModalProcessor):
    """Announces fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=original.Qwen2_5_VLProcessingInfo, dummy_inputs=original.Qwen2_5_VLDummyInputsBuilder
)
class PrunedQwen25VL(PruningModel, original.Qwen2_5_VLForConditionalGeneration):
    """Kept tokens have their positions in the whole grid. Text has its positions behind the whole grid."""

    _iwp_shift: Tensor | None = None

    def _iwp_places(self, _count: int, arguments: Any) -> Tensor:
        modality = "image" if "image_grid_thw" in arguments else "video"
        frames, rows, columns = arguments[f"{modality}_grid_thw"][0].tolist()
        merge, step = self.config.vision_config.spatial_merge_size, 1.0
        if modality == "video":
            seconds = arguments.get("second_per_grid_ts")
            step = getattr(self.config.vision_config, "tokens_per_second", 1.0)
            step *= 1.0 if seconds is None else float(seconds[0])
        return grid_places(frames, rows // merge, columns // merge, step)

    def _iwp_items(self, arguments: Any) -> int:
        return max(len(value) for name, value in arguments.items() if name.endswith("_grid_thw"))

    def _iwp_positions(self, positions: Tensor) -> Tensor:
        return positions

    def _iwp_marked(self, kept: Tensor, places: Tensor) -> Tensor:
        return with_places(kept, places)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Return the positions of a prompt, shape (3, T), and what is added to those of decoded tokens."""
        lengths = {each.mm_position.offset: each.mm_position.length for each in mm_features}
        spans = [
            Span(offset=offset, length=lengths[offset], places=grid_places(frames, rows, columns, step))
            for offset, frames, rows, columns, step in self.iter_mm_grid_thw(mm_features)
        ]
        return prompt_positions(len(input_tokens), spans)

    def embed_input_ids(
        self, input_ids: Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Tensor | None = None
    ) -> Tensor:
        """Return the inputs of the decoder, and remember where kept tokens stand."""
        self._iwp_shift = None
        given = list(multimodal_embeddings or [])
        width = self.config.get_text_config().hidden_size
        if is_multimodal is not None and any(each.shape[1] > width for each in given):
            read = [read_places(each, width) for each in given]
            given = [embeddings for embeddings, _ in read]
            self._iwp_shift = torch.zeros(AXES, len(input_ids), dtype=torch.int64, device=input_ids.device)
            self._iwp_shift[:, is_multimodal.to(input_ids.device)] = torch.cat([places for _, places in read], dim=1)
        embedded: Tensor = super().embed_input_ids(input_ids, given, is_multimodal=is_multimodal)
        return embedded

    def forward(self, input_ids: Any, positions: Tensor, *arguments: Any, **named: Any) -> Any:
        """Run the decoder with kept tokens at their positions."""
        shift, self._iwp_shift = self._iwp_shift, None
        if shift is not None:
            # In place: vLLM writes this buffer anew for every step, and CUDA graphs read it by its address.
            positions[:, : shift.shape[1]] += shift
        return super().forward(input_ids, positions, *arguments, **named)

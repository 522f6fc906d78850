"""LLaVA-OneVision with fewer visual tokens."""

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import llava_onevision as original
from vllm.multimodal import MULTIMODAL_REGISTRY

from iwp_vllm.engine.model import PruningModel
from iwp_vllm.engine.processor import PruningProcessor

__all__ = ["PrunedLlavaOnevision"]


class Processor(PruningProcessor, original.LlavaOnevisionMultiModalProcessor):
    """Announces fewer placeholders."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=original.LlavaOnevisionProcessingInfo, dummy_inputs=original.LlavaOnevisionDummyInputsBuilder
)
class PrunedLlavaOnevision(PruningModel, original.LlavaOnevisionForConditionalGeneration):
    """Positions are those of the shortened prompt, since vLLM counts them by itself.

    Tokens are chosen in the whole prompt, at the positions that they have there.
    """

    def _iwp_places(self, count: int, _arguments: Any) -> Tensor:
        return torch.arange(count).expand(3, -1)

    def _iwp_items(self, arguments: Any) -> int:
        return max(len(value) for name, value in arguments.items() if name.startswith(("pixel", "image_embeds")))

    def _iwp_positions(self, positions: Tensor) -> Tensor:
        return positions[0]

    def _iwp_marked(self, kept: Tensor, _places: Tensor) -> Tensor:
        return kept

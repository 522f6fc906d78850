"""Kept tokens at the multimodal positions of the whole prompt, inside vLLM's model runner."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from iwp_vllm.engine.model import PruningModel
from iwp_vllm.places import AXES, Span, prompt_positions, read_places

__all__ = ["PlacedModel"]


class PlacedModel(PruningModel):
    """Kept tokens stand where they stood in the image, text where it stands behind the whole image.

    For a decoder with multimodal positions. vLLM asks for those of a prompt before anything is chosen, so each kept
    embedding carries its own place.
    """

    config: Any
    _iwp_shift: Tensor | None = None

    def _iwp_spans(self, mm_features: list[Any]) -> Iterable[Span]:
        """Return where the images and videos of a shortened prompt stand, in order."""
        raise NotImplementedError

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Return the positions of a prompt, shape (3, T), and what is added to those of decoded tokens."""
        return prompt_positions(len(input_tokens), self._iwp_spans(mm_features))

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
        embedded: Tensor = super().embed_input_ids(input_ids, given, is_multimodal=is_multimodal)  # type: ignore[misc] # vLLM's class comes behind
        return embedded

    def forward(self, input_ids: Any, positions: Tensor, *arguments: Any, **named: Any) -> Any:
        """Run the decoder with kept tokens at their positions."""
        shift, self._iwp_shift = self._iwp_shift, None
        if shift is not None:
            # In place: vLLM writes this buffer anew for every step, and CUDA graphs read it by its address.
            positions[:, : shift.shape[1]] += shift
        return super().forward(input_ids, positions, *arguments, **named)  # type: ignore[misc] # as above

"""The part of a model that prunes: it drops tokens from the output of the vision tower, which vLLM caches."""

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer

from iwp_vllm.decoder import look
from iwp_vllm.directive import Directive, taken
from iwp_vllm.options import Options
from iwp_vllm.places import Span, prompt_positions, with_places
from iwp_vllm.tower_outputs import TowerOutputs

__all__ = ["PruningModel"]


class PruningModel:
    """Mixin for a multimodal model of vLLM with a Qwen2 decoder.

    Attributes
    ----------
    iwp_outputs : TowerOutputs
        Outputs of the vision tower for the latest images that were pruned.
    """

    language_model: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg] # vLLM's class comes behind
        options = Options.of_engine(getattr(vllm_config.model_config.hf_config, "iwp", None))
        self.iwp_rule, self.iwp_outputs = options.rule, TowerOutputs(options.tower_cache_mib)

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Return the embeddings of images and videos: (M, E) each, or (M, E + 6) with places where some are dropped."""
        directive = taken(kwargs)
        if directive is None:
            return super().embed_multimodal(**kwargs)  # type: ignore[misc] # as above

        def run() -> Tensor:
            # Images in one batch have equal directives, so they are one image.
            whole: Tensor = super(PruningModel, self).embed_multimodal(**kwargs)[0]  # type: ignore[misc] # as above
            return whole

        whole = self.iwp_outputs.get(directive.source, run)
        pruned = self._pruned(whole, self._iwp_places(len(whole), kwargs), directive)
        return (pruned,) * self._iwp_items(kwargs)

    def _pruned(self, whole: Tensor, places: Tensor, directive: Directive) -> Tensor:
        around = directive.around
        layers = self.language_model.model.layers
        _check_layers(layers)
        before, after = (self._embedded(ids, whole) for ids in (around.before, around.after))
        start, stop = len(before), len(before) + len(whole)
        image = Span(offset=start, length=len(whole), places=places)
        positions, _ = prompt_positions(stop + len(after), [image])
        seen = look(
            layers,
            torch.cat([before, whole, after]),
            positions.to(whole.device),
            slice(start, stop),
            depth=self.iwp_rule.layer,
            source=directive.source.encode(),
        )
        kept = self.iwp_rule(seen, int(directive.budget))
        return with_places(whole[kept], places[:, kept.to(places.device)])

    def _embedded(self, ids: tuple[int, ...], like: Tensor) -> Tensor:
        if not ids:
            return like[:0]
        embedded: Tensor = self.language_model.embed_input_ids(torch.tensor(ids, device=like.device))
        return embedded.to(like)

    def _iwp_places(self, count: int, arguments: Any) -> Tensor:
        """Return the places of an image's tokens relative to the first, shape (3, N)."""
        raise NotImplementedError

    def _iwp_items(self, arguments: Any) -> int:
        """Return how many images or videos the model is called with."""
        raise NotImplementedError


def _check_layers(layers: Any) -> None:
    """Raise unless the layers are what `look` runs: Qwen2's, with plain causal attention.

    Raises
    ------
    NotImplementedError
        If they are others.
    """
    for layer in layers:
        attention = getattr(getattr(layer, "self_attn", None), "attn", None)
        plain = isinstance(layer, Qwen2DecoderLayer) and getattr(attention, "sliding_window", None) is None
        if not plain or layer.self_attn.qk_norm or layer.self_attn.dual_chunk_attention_config:
            msg = f"iwp_vllm prunes decoders of plain Qwen2 layers, found {type(layer).__name__} with other attention"
            raise NotImplementedError(msg)

"""Merging read anew: the layers of an eager model run one by one on what stays, under a mask written out in full."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.integrations.oracle import with_tokens

MERGING = {"visionzip", "prumerge", "tome", "pact"}
"""Methods that give the tokens that they keep new states."""


@dataclass(frozen=True)
class Stage:
    """One time that tokens are merged, of one sample without padding.

    Attributes
    ----------
    layer : int
        Where it happens.
    merge : callable
        (states that enter the layer, sizes) of the visual tokens that are left, shapes (N, E) and (N,), to the
        ascending indices that stay, their states, and their sizes or None.
    """

    layer: int
    merge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]


def read_merged(model: Any, inputs: dict[str, Any], stages: Sequence[Stage], tokens: Tensor | None = None) -> Tensor:
    """Return the logits of all text rows of one sample, followed by `tokens` (1, n), shape (rows, vocabulary)."""
    if tokens is not None:
        inputs = with_tokens(inputs, tokens)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    hidden, (cos, sin) = _entrance(eager, inputs)
    config = eager.config
    visual = torch.isin(inputs["input_ids"][0], torch.tensor([config.image_token_id, getattr(config, "video_token_id", -1)]))
    sizes = torch.ones(len(visual))
    decoder = eager.model.language_model
    with torch.no_grad():
        for index, layer in enumerate(decoder.layers):
            for stage in (each for each in stages if each.layer == index):
                places = visual.nonzero().squeeze(1)
                kept, states, weights = stage.merge(hidden[0, places], sizes[places])
                hidden[0, places[kept]] = states
                if weights is not None:
                    sizes[places[kept]] = weights
                stay = ~visual
                stay[places[kept]] = True
                hidden, cos, sin = hidden[:, stay], cos[:, stay], sin[:, stay]
                visual, sizes = visual[stay], sizes[stay]
            rows = hidden.shape[1]
            mask = torch.full((rows, rows), torch.finfo(torch.float32).min).triu(1) + sizes.log()
            output = layer(hidden, attention_mask=mask[None, None], position_embeddings=(cos, sin))
            hidden = output[0] if isinstance(output, tuple) else output
        logits: Tensor = eager.lm_head(decoder.norm(hidden))
    return logits[0, ~visual]


def _entrance(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return what the first layer gets: states and rotary embedding, each of batch 1."""
    heard: list[Any] = []

    def listen(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        heard.append((args[0].clone(), kwargs["position_embeddings"]))

    handle = model.model.language_model.layers[0].register_forward_pre_hook(listen, with_kwargs=True)
    with torch.no_grad():
        model(**inputs, use_cache=False)
    handle.remove()
    return heard[0]

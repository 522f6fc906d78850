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
class Seen:
    """What enters a layer, of one sample without padding.

    Attributes
    ----------
    states : Tensor
        Shape (R, E), of all rows.
    visual, sizes : Tensor
        Shape (R,): which rows are visual tokens, and how many tokens each stands for.
    earlier : tuple of Seen
        What entered each layer before.
    """

    layer: Any
    states: Tensor
    visual: Tensor
    sizes: Tensor
    rotation: tuple[Tensor, Tensor]
    earlier: "tuple[Seen, ...]" = ()

    @property
    def hidden(self) -> Tensor:
        """States of the visual tokens, (N, E)."""
        return self.states[self.visual]

    def projected(self, name: str, *, rotated: bool) -> Tensor:
        """Return queries or keys of all rows, (heads, R, D), by the layer's own norm and weights."""
        attention = self.layer.self_attn
        normed = self.layer.input_layernorm(self.states)
        rows = getattr(attention, f"{name}_proj")(normed).view(len(normed), -1, attention.head_dim).transpose(0, 1)
        if not rotated:
            return rows
        half = rows.shape[-1] // 2
        cos, sin = self.rotation
        return rows * cos + torch.cat((-rows[..., half:], rows[..., :half]), -1) * sin

    def attention(self) -> Tensor:
        """Return how all rows attend to all, (Hq, R, R)."""
        queries, keys = (self.projected(name, rotated=True) for name in "qk")
        keys = keys.repeat_interleave(len(queries) // len(keys), 0)
        logits = queries @ keys.transpose(1, 2) * self.layer.self_attn.scaling + self.sizes.log()
        return logits.masked_fill(torch.ones(logits.shape[1:], dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


@dataclass(frozen=True)
class Stage:
    """One time that tokens are merged, of one sample without padding.

    Attributes
    ----------
    layer : int
        Where it happens.
    merge : callable
        What enters the layer to the ascending indices of the visual tokens that stay, their states, and their sizes or
        None.
    """

    layer: int
    merge: Callable[[Seen], tuple[Tensor, Tensor, Tensor | None]]


def read_merged(model: Any, inputs: dict[str, Any], stages: Sequence[Stage], tokens: Tensor | None = None) -> Tensor:
    """Return the logits of all text rows of one sample, followed by `tokens` (1, n), shape (rows, vocabulary)."""
    if tokens is not None:
        inputs = with_tokens(inputs, tokens)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    hidden, (cos, sin) = _entrance(eager, inputs)
    placeholders = [eager.config.image_token_id, getattr(eager.config, "video_token_id", -1)]
    visual = torch.isin(inputs["input_ids"][0], torch.tensor(placeholders))
    sizes = torch.ones(len(visual))
    decoder = eager.model.language_model
    seen: tuple[Seen, ...] = ()
    with torch.no_grad():
        for index, layer in enumerate(decoder.layers):
            for stage in (each for each in stages if each.layer == index):
                places = visual.nonzero().squeeze(1)
                kept, states, weights = stage.merge(Seen(layer, hidden[0], visual, sizes, (cos[0], sin[0]), seen))
                hidden = hidden.clone()
                hidden[0, places[kept]] = states
                if weights is not None:
                    sizes[places[kept]] = weights
                stay = ~visual
                stay[places[kept]] = True
                hidden, cos, sin = hidden[:, stay], cos[:, stay], sin[:, stay]
                visual, sizes = visual[stay], sizes[stay]
            seen = (*seen, Seen(layer, hidden[0], visual, sizes, (cos[0], sin[0])))
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

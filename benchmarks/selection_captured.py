"""Keys, values and queries that models computed, to time selections on: the trained miniatures and a random model."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from bench_prefill import build_inputs, build_model
from selection_data import Floats

from iwp_miniature import draw_examples, load_miniature
from iwp_transformers import LayerView, prune_visual_tokens

__all__ = ["CAPTURED", "MOST_CAPTURED"]

Captured = tuple[Floats, Floats, Floats]

MOST_CAPTURED = 2048
"""Tokens that are captured at most: the random model takes minutes for more on one thread."""

LAYER = 2
"""Layer at whose entrance the miniatures' tokens are read."""


def _reading(seen: list[Captured]) -> Callable[[LayerView], torch.Tensor]:
    """Return a selector that keeps all tokens and takes note of the visual ones, with the question's mean query."""

    def keep_all(view: LayerView) -> torch.Tensor:
        tokens = view.visual.rotated_keys, view.visual.values, view.question.queries.mean(dim=1)
        keys, values, queries = (part.float().numpy().copy() for part in tokens)
        seen.append((keys, values, queries))
        return torch.arange(len(view.visual))

    return keep_all


@cache
def miniature(name: str, total: int) -> Captured:
    """Return the tokens of as many pictures as it takes, in one pool, as those of several images in a prompt are."""
    loaded = load_miniature(name)
    seen: list[Captured] = []
    examples = draw_examples(loaded.architecture, split="test", per_kind=math.ceil(total / 500))
    for example in examples:
        inputs = loaded.encode([example.scene.image], [example.question.text])
        with prune_visual_tokens(loaded.model, budget=1.0, layer=LAYER, selector=_reading(seen)), torch.no_grad():
            loaded.model(**inputs, logits_to_keep=1)
        if sum(keys.shape[1] for keys, _, _ in seen) >= total:
            break
    keys, values = (np.concatenate([one[part] for one in seen], axis=1)[:, :total] for part in (0, 1))
    return np.ascontiguousarray(keys), np.ascontiguousarray(values), seen[0][2]


@cache
def random_model(total: int) -> Captured:
    """Return the tokens at layer 4 of a random model of 28 layers, which the 23 layers behind it do not touch."""
    model = build_model(5, 896, 4864, "cpu", torch.float32)
    seen: list[Captured] = []
    inputs = build_inputs(math.ceil(math.sqrt(total)), 46, "cpu", torch.float32)
    with prune_visual_tokens(model, budget=1.0, layer=4, selector=_reading(seen)), torch.no_grad():
        model(**inputs, logits_to_keep=1)
    keys, values, queries = seen[0]
    return np.ascontiguousarray(keys[:, :total]), np.ascontiguousarray(values[:, :total]), queries


CAPTURED: dict[str, Callable[[int], Captured]] = {
    "captured, miniature LLaVA-OneVision": lambda total: miniature("llava-onevision", total),
    "captured, miniature Qwen2.5-VL": lambda total: miniature("qwen2.5-vl", total),
    "captured, random 28 layers": random_model,
}
"""Kinds of tokens by name, each from a number of tokens; their heads are narrow: 2 of 32, and 2 of 64."""

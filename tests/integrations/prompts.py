"""Prompts and comparisons that the tests of faults share."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iwp_transformers import LayerView, prune_visual_tokens
from tests.integrations.oracle import dropped_tokens, true_logits, with_tokens
from tests.integrations.tiny_models import Image

PAIR = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]
"""Two samples of different lengths, one with two images."""
BOTH = ["llava-onevision", "qwen2.5-vl"]
"""One family with plain and one with multimodal rotary positions."""
EIGHT = [
    (3, Image(), 4),
    (9,),
    (2, Image(32, 16), 6),
    (5, Image(16, 16), 1, Image(16, 32), 7),
    (23,),
    (1, Image(32, 32), 3),
    (4, Image(16, 16), 11),
    (6, Image(), 2),
]
"""Prompts of eight visitors of a web app: images of different sizes, and text alone."""


def first_ones(view: LayerView) -> Tensor:
    """Keep the first visual tokens, so that the last one of a prompt is dropped."""
    return torch.arange(view.budget)


def greedy(model: Any, inputs: dict[str, Any], **options: Any) -> Tensor:
    """Return greedy ids."""
    ids: Tensor = model.generate(**inputs, **{"max_new_tokens": 5, "do_sample": False, **options})
    return ids


def logits_of(model: Any, inputs: dict[str, Any], **options: Any) -> Tensor:
    """Return the logits of one forward without gradients."""
    with torch.no_grad():
        logits: Tensor = model(**inputs, **options).logits
    return logits


def pruned_logits(
    model: nn.Module, inputs: dict[str, Any], *, pruned: nn.Module | None = None, **options: Any
) -> Tensor:
    """Return the logits of one forward in a session of its own, on `pruned` where that is another object."""
    with prune_visual_tokens(model if pruned is None else pruned, budget=0.3, layer=1, **options):
        return logits_of(model, inputs)


def true_step(model: nn.Module, inputs: dict[str, Any], record: Any, tokens: Tensor, layer: int) -> Tensor:
    """Return the logits of tokens behind a pruned prompt, from the full-length model."""
    dropped = dropped_tokens(record, inputs["input_ids"].shape)
    return true_logits(model, with_tokens(inputs, tokens), layer, dropped)[:, -tokens.shape[1] :]


def right_or_refused(attempt: Callable[[], Tensor], expected: Tensor, reason: str, tolerance: float = 1e-4) -> None:
    """Fail unless an attempt gives what is expected, or raises NotImplementedError with the reason."""
    try:
        actual = attempt()
    except NotImplementedError as error:
        if re.search(reason, str(error)) is None:
            msg = f"refused without the reason {reason!r}: {error}"
            raise AssertionError(msg) from error
        return
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))

"""Packed questions, against the genuine model that is asked each of them alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwp_miniature.batches import Batch
from iwp_miniature.packing import packed
from iwp_miniature.training import EARLY, MIDDLE, image_features, packed_states
from iwp_miniature.vocabulary import WORDS
from tests.miniature.conftest import DrawBatch

NEAR = {"rtol": 1e-4, "atol": 1e-4}


def alone(model: Any, batch: Batch, picture: int, question: int) -> dict[str, Any]:
    """Make the inputs of the model for one question about one picture, as its processor would make them."""
    ids = torch.cat([batch.prefix, batch.slots[picture, question]])[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **of_picture(batch.pixels, picture)}
    if "image_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    return inputs


def of_picture(pixels: Mapping[str, Tensor], picture: int) -> dict[str, Tensor]:
    """Pixels of one of some pictures of one size."""
    pictures = len(pixels["image_sizes" if "image_sizes" in pixels else "image_grid_thw"])
    return {name: value.chunk(pictures)[picture] for name, value in pixels.items()}


def logits_alone(model: Any, batch: Batch) -> Tensor:
    """Logits of every question, each asked alone, shape (B, Q, SLOT, words)."""
    pictures, questions, _ = batch.slots.shape
    prefix = len(batch.prefix)
    rows = [
        torch.stack([model(**alone(model, batch, b, q)).logits[0, prefix:] for q in range(questions)])
        for b in range(pictures)
    ]
    return torch.stack(rows)


def logits_packed(model: Any, batch: Batch, **options: int) -> Tensor:
    """Logits of every question in one pass, shape (B, Q, SLOT, words)."""
    return packed_states(model, image_features(model, batch.pixels), batch, **options).logits


@contextmanager
def blindfolded(model: Any, batch: Batch, layers: int) -> Iterator[None]:
    """Hand the first decoder layers of an eager model a 4-D mask without the question's view of the picture."""
    prefix, visual = len(batch.prefix), batch.packing.visual
    length = prefix + batch.slots.shape[2]
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    allowed[prefix:, visual] = False
    mask = torch.zeros(1, 1, length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)

    def cover(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, {**options, "attention_mask": mask}

    hooks = [
        layer.register_forward_pre_hook(cover, with_kwargs=True) for layer in model.model.language_model.layers[:layers]
    ]
    yield
    for hook in hooks:
        hook.remove()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("kind", "grid"),
    [("llava-onevision", (4, 4)), ("qwen2.5-vl", (4, 4)), ("qwen2.5-vl", (3, 5)), ("qwen2.5-vl", (5, 3))],
    indirect=["kind"],
    ids=str,
)
def test_packed_questions_get_the_logits_that_they_get_alone(
    model: Any, draw_batch: DrawBatch, grid: tuple[int, int], attention: str
) -> None:
    """At every token of every question about each of two pictures."""
    batch, _ = draw_batch(grid)
    model.set_attn_implementation(attention)

    torch.testing.assert_close(logits_packed(model, batch), logits_alone(model, batch), **NEAR)


@torch.no_grad()
@pytest.mark.parametrize("blind", [1, 3])
def test_blind_layers_are_those_of_a_mask_on_these_layers(model: Any, draw_batch: DrawBatch, blind: int) -> None:
    """The questions' rows lose the picture's columns in the first layers, nothing else; and that changes them."""
    batch, _ = draw_batch(questions=2)
    model.set_attn_implementation("eager")
    with blindfolded(model, batch, blind):
        expected = logits_alone(model, batch)

    torch.testing.assert_close(logits_packed(model, batch, blind=blind), expected, **NEAR)
    assert (logits_packed(model, batch) - expected).abs().max() > 0.1


@torch.no_grad()
def test_states_on_the_way_are_those_of_the_model_alone(model: Any, draw_batch: DrawBatch) -> None:
    """Early, those of the visual tokens; in the middle, those of the last word of each question."""
    batch, _ = draw_batch()
    prefix, visual = batch.packing.prefix, batch.packing.visual

    states = packed_states(model, image_features(model, batch.pixels), batch)

    for picture, slot in np.ndindex(*batch.kinds.shape):
        hidden = model(**alone(model, batch, picture, slot), output_hidden_states=True).hidden_states
        end = prefix + batch.slots[picture, slot].tolist().index(WORDS.index("?"))
        torch.testing.assert_close(states.early[picture], hidden[EARLY][0, visual], **NEAR)
        torch.testing.assert_close(states.middle[picture, slot], hidden[MIDDLE][0, end], **NEAR)


def test_gradients_are_those_of_the_questions_alone(model: Any, draw_batch: DrawBatch) -> None:
    """A sum over all logits pulls at every weight as the sum over single passes does."""
    batch, _ = draw_batch(pictures=1, questions=3)
    model.set_attn_implementation("eager")
    pull = torch.randn(logits_packed(model, batch).shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for logits in (logits_packed, logits_alone):
        model.zero_grad()
        (pull * logits(model, batch)).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})

    assert gradients[0].keys() == gradients[1].keys()
    largest = max(gradient.abs().max().item() for gradient in gradients[1].values())
    for name, gradient in gradients[0].items():
        # Biases of keys change no attention: their gradients are nothing but rounding.
        near = 1e-3 * gradients[1][name].abs().max().item() + 1e-6 * largest
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=near, msg=name)


@torch.no_grad()
def test_autocast_stays_near_full_precision(model: Any, draw_batch: DrawBatch) -> None:
    """bfloat16 products, as in training, move no logit by more than a twentieth of their spread."""
    batch, _ = draw_batch()
    exact = logits_packed(model, batch)

    with torch.autocast("cpu", torch.bfloat16):
        rough = logits_packed(model, batch).float()

    assert (rough - exact).std() < 0.05 * exact.std()


@torch.no_grad()
def test_the_model_is_itself_again_after_an_exception(model: Any, draw_batch: DrawBatch) -> None:
    """Attention of both towers is what it was, answers are bit for bit, and packing still works."""
    batch, _ = draw_batch(pictures=1, questions=1)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    before, whole = logits_alone(model, batch), logits_packed(model, batch)

    with pytest.raises(KeyError), packed(model, batch.packing):
        raise KeyError

    assert model.config.get_text_config()._attn_implementation == "eager"
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert torch.equal(logits_alone(model, batch), before)
    assert torch.equal(logits_packed(model, batch), whole)

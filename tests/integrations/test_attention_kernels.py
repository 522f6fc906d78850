"""Attention that takes padding as lengths and not as a square: FlashAttention's contract, emulated and real."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, positioned, text_rows, true_logits
from tests.integrations.selectors import Chance
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]
NAME = "unpadded_reference"


def unpadded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    position_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each sample's unpadded tokens, aligned at their ends, as FlashAttention 2 does.

    The mask has two dimensions or is None. Without one, positions of a single row that do not count up by one mean
    several sequences, as in Transformers' wrapper of the kernel.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    batch, _, new, _ = query.shape
    if attention_mask is None and batch == 1 and new > 1 and position_ids is not None:
        assert position_ids.shape[-1] == new
        assert bool((position_ids.diff() == 1).all()), "positions with gaps would be taken for packed sequences"
    mask = key.new_ones(batch, key.shape[2], dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    key, value = key[:, :, : mask.shape[1]], value[:, :, : mask.shape[1]]
    output = torch.zeros_like(query)
    for sample in range(batch):
        columns = mask[sample].nonzero().squeeze(1)
        rows = mask[sample, -new:].nonzero().squeeze(1)
        scores = query[sample][:, rows] @ key[sample][:, columns].transpose(1, 2) * scaling
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(len(columns) - len(rows))
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        output[sample, :, rows] = weights @ value[sample][:, columns]
    return output.transpose(1, 2).contiguous(), None


@pytest.fixture
def implementation() -> Iterator[str]:
    """Register the emulation for one test."""
    AttentionInterface.register(NAME, unpadded_attention)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    yield NAME
    del AttentionInterface._global_mapping[NAME]
    del AttentionMaskInterface._global_mapping[NAME]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]], ids=["ragged", "single"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FACTORIES)
def test_an_attention_that_unpads_is_exact(
    implementation: str, family: str, padding: str, prompts: list, layer: int
) -> None:
    """Masks of the shortened layers, and positions with gaps, are what such kernels understand."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, prompts, padding)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=Chance()) as session, torch.no_grad():
        model.model.language_model.set_attn_implementation(implementation)
        logits = model(**positioned(model, inputs)).logits
        model.model.language_model.set_attn_implementation("eager")

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    rows = text_rows(inputs, dropped)
    assert_close(logits[rows], true_logits(model, inputs, layer, dropped)[rows])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", FACTORIES)
def test_an_attention_that_unpads_decodes_like_the_others(
    implementation: str, family: str, layer: int, cache: str
) -> None:
    """Greedy ids are those of eager attention."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)
    options = {"max_new_tokens": 5, "do_sample": False, "cache_implementation": cache}

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=Chance()):
        model.set_attn_implementation("eager")
        expected = model.generate(**inputs, **options)
        model.model.language_model.set_attn_implementation(implementation)
        assert torch.equal(model.generate(**inputs, **options), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention 2 runs on CUDA devices only")
@pytest.mark.skipif(find_spec("flash_attn") is None, reason="flash-attn is not installed")
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", FACTORIES)
def test_flash_attention_2_agrees_with_sdpa(family: str, layer: int) -> None:
    """The real kernel gives the logits of SDPA within the rounding of bfloat16."""
    model = FACTORIES[family]()
    inputs = {
        name: part.to("cuda", torch.bfloat16 if part.is_floating_point() else None)
        for name, part in make_inputs(model, PROMPTS).items()
    }
    model.to("cuda", torch.bfloat16)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=Chance()) as session, torch.no_grad():
        model.set_attn_implementation("sdpa")
        expected = model(**inputs).logits
        model.set_attn_implementation("flash_attention_2")
        logits = model(**inputs).logits

    rows = text_rows(inputs, dropped_tokens(session.records[-1], inputs["input_ids"].shape).cuda())
    assert_close(logits[rows].float(), expected[rows].float(), tolerance=5e-2)

"""What holds on the CPU holds on a CUDA GPU: exactness in every precision, and the same tokens kept."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import (
    assert_close,
    dropped_tokens,
    positioned,
    text_rows,
    true_generation,
    true_logits,
)
from tests.integrations.selectors import Chance
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

DEVICE = "cuda"
PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Of the largest logit: what the CPU is held to in each precision."""


def on_device(inputs: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Move inputs to the GPU, pixels in the precision of the model."""
    return {name: part.to(DEVICE, dtype if part.is_floating_point() else None) for name, part in inputs.items()}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]], ids=["ragged", "single"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FACTORIES)
def test_text_rows_equal_those_of_the_masked_full_model(
    family: str, padding: str, prompts: list, attention: str, dtype: torch.dtype
) -> None:
    """A single prompt without padding reaches the kernels that take no mask."""
    model = FACTORIES[family]()
    inputs = on_device(make_inputs(model, prompts, padding), dtype)
    model.to(DEVICE, dtype).set_attn_implementation(attention)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=Chance()) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape).to(DEVICE)
    rows = text_rows(inputs, dropped)
    expected = true_logits(model, inputs, 1, dropped)
    assert logits.dtype == dtype
    assert_close(logits[rows].float(), expected[rows].float(), TOLERANCES[dtype])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("family", FACTORIES)
def test_decoded_ids_equal_those_of_the_masked_full_model(family: str, cache: str) -> None:
    """Greedy ids in float32, with the default selection."""
    model = FACTORIES[family]()
    inputs = on_device(make_inputs(model, PROMPTS))
    model.to(DEVICE)
    options = {"max_new_tokens": 5, "do_sample": False}

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        ids = model.generate(**inputs, cache_implementation=cache, **options)

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape).to(DEVICE)
    assert torch.equal(ids, true_generation(model, inputs, 1, dropped, **options).sequences)


@pytest.mark.skipif(find_spec("sklearn") is None, reason="the digits come from scikit-learn")
@pytest.mark.skipif(find_spec("triton") is None, reason="the kernels are Triton's")
@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl"])
def test_a_trained_miniature_keeps_the_tokens_that_it_keeps_on_the_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen by the Triton kernels here and by the reference there, 60 questions at two layers."""
    from iwp_miniature import ARCHITECTURES, draw_examples, load_miniature
    from iwp_torch import triton_pc_mmr

    launched: list[str] = []
    launch = triton_pc_mmr.launch

    def noted(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
        launched.append(kernel.__name__)
        launch(kernel, grid, **arguments)

    monkeypatch.setattr(triton_pc_mmr, "launch", noted)
    asked = draw_examples(ARCHITECTURES[name], split="test", per_kind=7, seed=11)[:60]
    miniature = load_miniature(name)

    for layer in (2, 3):
        kept, words = {}, {}
        for device in ("cpu", DEVICE):
            miniature.model.to(device)
            inputs = miniature.encode([each.scene.image for each in asked], [each.question.text for each in asked])
            with prune_visual_tokens(miniature.model, budget=0.111, layer=layer) as session:
                words[device] = miniature.answer(inputs)
            kept[device] = [part.cpu() for part in session.records[-1].kept]
        both = zip(kept["cpu"], kept[DEVICE], strict=True)
        equal = sum(int(torch.isin(one, other).sum()) for one, other in both)
        assert equal / sum(map(len, kept["cpu"])) >= 0.995
        assert sum(one == other for one, other in zip(words["cpu"], words[DEVICE], strict=True)) >= 59
    assert "compare" in launched

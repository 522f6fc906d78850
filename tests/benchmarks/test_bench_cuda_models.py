"""Models of published shapes, and miniatures of them that are fed and timed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("index", "parameters"), [(0, 8_030_348_832), (1, 8_292_166_656)], ids=["LLaVA-OneVision", "Qwen2.5-VL"]
)
def test_models_have_the_published_number_of_parameters(index: int, parameters: int) -> None:
    """The totals of lmms-lab's and Qwen's checkpoints; the decoder with its head is Qwen2-7B's 7,615,616,512."""
    models = import_module("cuda_models")
    model = models.build(models.PUBLISHED[index], torch.device("meta"), torch.bfloat16)

    decoder = (*model.model.language_model.parameters(), *model.lm_head.parameters())
    assert sum(part.numel() for part in decoder) == 7_615_616_512
    assert sum(part.numel() for part in model.parameters()) == parameters
    assert {part.dtype for part in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "sdpa"


@pytest.fixture(scope="module", params=[0, 1], ids=["LLaVA-OneVision", "Qwen2.5-VL"])
def tiny(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Build a miniature of each family."""
    models = import_module("cuda_models")
    torch.manual_seed(0)
    shape = models.TINY[request.param]
    return models.build(shape, CPU, torch.float32), shape


def test_a_model_that_is_fed_answers_as_if_it_had_seen_the_picture(tiny: tuple[Any, Any]) -> None:
    """Prefill starts from the tower's own features, put where the placeholders are."""
    models = import_module("cuda_models")
    model, shape = tiny
    # So many tokens that the tower makes no surplus: a picture of LLaVA's is 16 and a newline.
    total = 24 if shape.is_qwen else 34
    prompt = models.inputs(model, shape, total, 20, 1)
    assert (prompt["input_ids"] == shape.image_id).sum(dim=1).tolist() == [total]
    assert prompt["input_ids"].shape == (1, total + 20)
    torch.manual_seed(1)
    seen = models.picture(model, shape, total)
    torch.manual_seed(1)
    features = models.encode(model, shape, total)
    assert features.shape == (total, 32)

    with torch.no_grad():
        expected = model(**{**prompt, **seen}).logits
        models.feed(model, features, 1)
        found = model(**prompt).logits
        models.feed(model, features + 1, 1)
        other = model(**prompt).logits

    del model.model.get_image_features
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(other, expected)


def test_the_decoders_watches_see_every_forward_and_leave_no_hook(tiny: tuple[Any, Any]) -> None:
    """One watch a forward."""
    prefill = import_module("cuda_prefill")
    text = tiny[0].model.language_model
    ids = torch.ones(1, 3, dtype=torch.long)

    with prefill.decoder_watches(tiny[0], CPU) as watches, torch.no_grad():
        tiny[0](input_ids=ids)
        tiny[0](input_ids=ids)
        assert len(watches) == 2
        assert all(watch.seconds > 0 for watch in watches)

    assert not text._forward_hooks
    assert not text._forward_pre_hooks


def test_a_setting_whose_operations_are_not_known_is_compared_by_the_rest() -> None:
    """Ratios that need them are None, and the figure leaves the point out; nothing breaks."""
    prefill, plots = import_module("cuda_prefill"), import_module("cuda_plots")
    seconds = {f"{name} seconds": {"median": 2.0} for name in ("prefill", "decoder", "selection")}
    full = {**seconds, "decoded tokens a second": 3.0, "peak bytes": 8}
    pruned = {**full, "decoder seconds": {"median": 1.0}, "flops full": None, "flops pruned": None}

    found = prefill.compare(full, pruned)
    figure = plots.prefill_figure([{"model": "LLaVA", "batch": 1, "11.1%": {"against full": found}}])

    assert found["speed-up of the decoder"] == 2
    assert {name for name, ratio in found.items() if ratio is None} == {
        "speed-up that the operations allow",
        "speed-up over what is allowed",
    }
    assert not figure.axes[0].collections

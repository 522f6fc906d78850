"""A pruned forward equals the full-length one whose later layers may not look at what was dropped."""

from typing import Any

import pytest
import torch

from iwp_transformers import LayerView, prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, positioned, text_rows, true_logits
from tests.integrations.tiny_models import FACTORIES, LAYERS, Image, Video, make_inputs

MEDIA = {
    "images": [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)],
    "one image first": [(Image(), 4), (Image(16, 32), 9)],
    "image last": [(5, Image())],
    "some without": [(3, Image(), 2), (20,)],
    "videos": [(3, Video(), 4), (2, Video(), 9)],
    "mixture": [(3, Video(), 4, Image(), 2), (2, Image(16, 32), 9)],
}

WAYS = [
    (0, "left", "sdpa"), (0, "right", "eager"), (1, "left", "eager"), (1, "right", "sdpa"),
    (LAYERS - 1, "left", "sdpa"), (LAYERS - 1, "right", "eager"),
]  # fmt: skip
"""Layer, padding and attention: each pair of them meets."""


def scattered(view: LayerView) -> torch.Tensor:
    """Keep tokens at random, and for every sample others."""
    seed = torch.Generator().manual_seed(int(view.visual.positions.sum()))
    return torch.randperm(len(view.visual), generator=seed)[: view.budget]


def prompts_for(family: str, media: str) -> list:
    """Return prompts, or skip where the family has no such media."""
    if family == "llava-next" and media in ("videos", "mixture"):
        pytest.skip("LLaVA-NeXT takes no videos")
    return MEDIA[media]


@pytest.mark.parametrize(("layer", "padding", "attention"), WAYS)
@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("family", FACTORIES)
def test_text_rows_equal_those_of_the_masked_full_model(
    family: str, media: str, padding: str, attention: str, layer: int
) -> None:
    """Logits of all text rows agree to 1e-4, whatever the family, media, padding, attention and layer."""
    model = FACTORIES[family]()
    model.set_attn_implementation(attention)
    inputs = make_inputs(model, prompts_for(family, media), padding)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    rows = text_rows(inputs, dropped)
    expected = true_logits(model, inputs, layer, dropped)
    assert logits.shape == expected.shape
    assert_close(logits[rows], expected[rows])


@pytest.mark.parametrize("family", FACTORIES)
def test_the_miniatures_notice_what_was_dropped(family: str) -> None:
    """Without pruning the logits are far away, so that the comparison above can fail."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, MEDIA["images"])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session, torch.no_grad():
        model(**inputs)
    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    with torch.no_grad():
        unpruned = model(**positioned(model, inputs)).logits

    rows = text_rows(inputs, dropped)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(unpruned[rows], true_logits(model, inputs, 1, dropped)[rows], tolerance=0.05)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
@pytest.mark.parametrize("family", FACTORIES)
def test_half_precision_is_as_close_as_its_rounding_allows(family: str, dtype: torch.dtype, tolerance: float) -> None:
    """In half precision the rows agree within the rounding of the type."""
    model = FACTORIES[family]().to(dtype)
    inputs = make_inputs(model, MEDIA["images"])
    inputs = {name: part.to(dtype) if part.is_floating_point() else part for name, part in inputs.items()}

    with prune_visual_tokens(model, budget=0.3, layer=2, selector=scattered) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    rows = text_rows(inputs, dropped)
    assert logits.dtype == dtype
    assert_close(logits[rows].float(), true_logits(model, inputs, 2, dropped)[rows].float(), tolerance)


@pytest.mark.parametrize("family", FACTORIES)
def test_a_batch_without_a_mask_is_exact(family: str) -> None:
    """Samples of one length need no attention mask, also where they keep different numbers of tokens."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [(4, Image(), 5), (4, Image(), 5)])

    def uneven(view: LayerView) -> list[int]:
        return list(range(0, len(view.visual), 2 + int(view.visual.hidden.sum() > 0)))

    uneven.own_count = True  # type: ignore[attr-defined]  # functions take attributes
    without = {name: part for name, part in inputs.items() if name != "attention_mask"}
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=uneven) as session, torch.no_grad():
        logits = model(**without).logits

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    rows = text_rows(inputs, dropped)
    assert_close(logits[rows], true_logits(model, inputs, 1, dropped)[rows])


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_mask_of_the_callers_own_keeps_its_pattern(padding: str) -> None:
    """Four dimensions that forbid more than the future, or allow some of it, hold among the rows that stay."""
    model = FACTORIES["llava-onevision"]()
    inputs = positioned(model, make_inputs(model, MEDIA["images"], padding))
    real, length = inputs["attention_mask"].bool(), inputs["input_ids"].shape[1]
    own = torch.ones(length, length, dtype=torch.bool).tril() & real[:, None, None, :]
    own[..., -8:, 9] = False
    own[..., 9, 12] = True
    own |= torch.eye(length, dtype=torch.bool)
    mask = own & real[:, None, None, :]

    with prune_visual_tokens(model, budget=0.3, layer=2, selector=scattered) as session, torch.no_grad():
        logits = model(**{**inputs, "attention_mask": mask}).logits
    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)

    def hide(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "attention_mask": mask & ~dropped[:, None, None, :]}

    handles = [
        layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in model.model.language_model.layers[2:]
    ]
    with torch.no_grad():
        expected = model(**{**inputs, "attention_mask": mask}).logits
    for handle in handles:
        handle.remove()

    rows = text_rows(inputs, dropped)
    assert_close(logits[rows], expected[rows])

"""A prompt that ends with its image: its last row is computed, whether or not others may look at it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers import PruningRecord, prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, forbidden, positioned, text_rows, with_tokens
from tests.integrations.prompts import BOTH, first_ones
from tests.integrations.tiny_models import CACHE, FACTORIES, LAYERS, Image, Video, make_inputs

PROMPTS: dict[str, list] = {
    "single": [(5, Image())],
    "no text at all": [(Image(32, 32),)],
    "two images": [(3, Image(16, 16), 2, Image())],
    "both of a batch": [(5, Image()), (2, Image(32, 16))],
    "one of a batch": [(5, Image()), (2, Image(32, 16), 6)],
    "beside text alone": [(5, Image(16, 16)), (40,)],
}


@contextmanager
def forbidden_but_itself(model: nn.Module, layer: int, dropped: Tensor, real: Tensor) -> Iterator[None]:
    """Let no layer from `layer` on look at dropped tokens, except each row at itself.

    So the row of a dropped token is that of a token which sees what was kept, and itself.
    """

    def open_diagonal(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        kwargs["attention_mask"].diagonal(dim1=-2, dim2=-1).zero_()

    with forbidden(model, layer, dropped, real):
        layers = getattr(model, "model", model).language_model.layers[layer:]
        handles = [part.register_forward_pre_hook(open_diagonal, with_kwargs=True) for part in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def true_output(model: nn.Module, inputs: dict[str, Any], layer: int, record: PruningRecord, **options: Any) -> Any:
    """Return what the full-length model gives."""
    dropped = dropped_tokens(record, (len(record.kept), record.padded_full))
    real = inputs["attention_mask"][:, : record.padded_full].bool()
    with torch.no_grad(), forbidden_but_itself(model, layer, dropped, real):
        return model(**positioned(model, inputs), use_cache=False, **options)


def last_rows(inputs: dict[str, Any]) -> Tensor:
    """Return which row is the last real one of each sample, shape (B, T)."""
    mask = inputs["attention_mask"]
    return mask.bool() & (mask.flip(1).cumsum(1).flip(1) == 1)


@pytest.mark.parametrize(("attention", "layer"), [("eager", 1), ("sdpa", 0), ("sdpa", LAYERS - 1)])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("family", BOTH)
def test_the_last_row_is_that_of_a_token_that_sees_what_was_kept(
    family: str, prompts: str, padding: str, attention: str, layer: int
) -> None:
    """Logits of the last position and of all text equal the full-length model's; other dropped rows are zero."""
    model = FACTORIES[family]()
    model.set_attn_implementation(attention)
    inputs = make_inputs(model, PROMPTS[prompts], padding)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=first_ones) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    record = session.records[-1]
    dropped = dropped_tokens(record, inputs["input_ids"].shape)
    last = last_rows(inputs)
    expected = true_output(model, inputs, layer, record).logits
    assert logits[last].abs().amax(-1).all(), "logits of zero: the last row was not computed"
    assert_close(logits[last], expected[last])
    rows = text_rows(inputs, dropped)
    if rows.any():
        assert_close(logits[rows], expected[rows])
    assert not logits[dropped & ~last].any()


@pytest.mark.parametrize("rule", [{}, {"selector": first_ones}], ids=["the paper's rule", "the last is dropped"])
@pytest.mark.parametrize(("cache", "layer"), [("dynamic", 0), ("dynamic", 2), ("static", 0), ("static", 1), (None, 1)])
@pytest.mark.parametrize("prompts", ["single", "one of a batch"])
@pytest.mark.parametrize("family", BOTH)
def test_captions_decode_exactly(family: str, prompts: str, layer: int, cache: str | None, rule: dict) -> None:
    """Ids and logits of captions are those of the full-length model, with each cache and with none."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS[prompts])
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True}
    options |= {"output_logits": True}
    caching: dict[str, Any] = {"cache_implementation": cache} if cache else {"use_cache": False}

    with prune_visual_tokens(model, budget=0.3, layer=layer, **rule) as session:
        output = model.generate(**inputs, **options, **caching)

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    with forbidden_but_itself(model, layer, dropped, inputs["attention_mask"].bool()):
        expected = model.generate(**inputs, use_cache=False, **options)
    assert torch.equal(output.sequences, expected.sequences)
    assert_close(torch.stack(output.logits), torch.stack(expected.logits))
    assert len(session.records) == 1


@pytest.mark.parametrize("family", BOTH)
def test_a_prompt_that_ends_with_a_video_is_computed_too(family: str) -> None:
    """The kind of picture does not matter."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [(4, Video()), (2, Image(16, 32), 3)])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=first_ones) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    last = last_rows(inputs)
    assert_close(logits[last], true_output(model, inputs, 1, session.records[-1]).logits[last])


@pytest.mark.parametrize("layer", [0, 2])
def test_the_last_hidden_state_is_computed_without_a_head_too(layer: int) -> None:
    """A pooled embedding is read off the last row of the inner model."""
    model = FACTORIES["llava-onevision"]()
    inputs = positioned(model, make_inputs(model, PROMPTS["one of a batch"]))

    with prune_visual_tokens(model.model, budget=0.3, layer=layer, selector=first_ones) as session, torch.no_grad():
        states = model.model(**inputs).last_hidden_state

    last = last_rows(inputs)
    expected = true_output(model, inputs, layer, session.records[-1]).logits
    assert_close(model.lm_head(states)[last], expected[last])


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("caption", [1, 3])
@pytest.mark.parametrize("family", BOTH)
def test_the_loss_of_a_captions_first_token_is_real_or_refused(family: str, caption: int, padding: str) -> None:
    """`<image>` and a caption, in training: the row in front of the first word may be a dropped token's."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [(5, Image(), caption), (2, Image(32, 16), 3)], padding)
    labels = torch.full_like(inputs["input_ids"], -100)
    for sample, count in enumerate((caption, 3)):
        places = inputs["attention_mask"][sample].nonzero().squeeze(1)[-count:]
        labels[sample, places] = inputs["input_ids"][sample, places]

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=first_ones) as session:
        try:
            output = model(**positioned(model, inputs), labels=labels)
        except NotImplementedError as error:
            reason = str(error)
            output = None

    if output is None:
        assert "labels" in reason
        return
    expected = true_output(model, inputs, 1, session.records[-1], labels=labels)
    assert_close(output.loss, expected.loss)
    output.loss.backward()
    assert model.model.language_model.layers[-1].mlp.down_proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("family", BOTH)
def test_a_second_turn_behind_an_image_is_exact(family: str) -> None:
    """Text that comes on the cache does not see the last token where it was dropped."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS["single"])
    tokens = torch.tensor([[33, 34, 35]])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=first_ones) as session, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        logits = model(input_ids=tokens, **{CACHE: cache}).logits

    longer = with_tokens(inputs, tokens)
    assert_close(logits, true_output(model, longer, 1, session.records[-1]).logits[:, -3:])


@pytest.mark.parametrize("padding", ["left", "right"])
def test_image_tokens_under_the_padding_mask_are_no_candidates(padding: str) -> None:
    """Some of a picture's tokens masked by the caller: they are neither counted nor kept, and all else is exact.

    Of the families only those with plain positions run such inputs at all.
    """
    model = FACTORIES["llava-onevision"]()
    prompt = (Image(32, 32), 6) if padding == "left" else (4, Image(32, 32))
    inputs = make_inputs(model, [prompt, prompt])
    count = inputs["input_ids"].shape[1]
    masked = slice(0, 4) if padding == "left" else slice(count - 4, count)
    inputs["attention_mask"][1, masked] = 0

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    record = session.records[-1]
    real = inputs["attention_mask"].bool()
    pictures = real & (inputs["input_ids"] == model.config.image_token_id)
    for sample, visual in enumerate(record.visual):
        assert torch.equal(visual, pictures[sample].nonzero().squeeze(1))
        assert torch.isin(record.kept[sample], visual).all()
        assert len(record.kept[sample]) == int(0.3 * len(visual) + 0.5)
    rows = (text_rows(inputs, dropped_tokens(record, real.shape)) | last_rows(inputs)) & real
    assert_close(logits[rows], true_output(model, inputs, 1, record).logits[rows])

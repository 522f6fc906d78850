"""What a pruned model returns keeps its shapes, can be trained through, and says nothing about dropped tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, forbidden, positioned, text_rows, true_logits
from tests.integrations.selectors import Chance
from tests.integrations.tiny_models import FACTORIES, LAYERS, Image, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]


def pruned(model: nn.Module, inputs: dict[str, Any], layer: int, **options: Any) -> tuple[Any, Tensor]:
    """Return the output of a pruned forward, and which tokens it dropped."""
    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=Chance()) as session:
        output = model(**positioned(model, inputs), **options)
    return output, dropped_tokens(session.records[-1], inputs["input_ids"].shape)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("family", FACTORIES)
def test_hidden_states_and_attentions_come_back_at_full_length(family: str, layer: int) -> None:
    """Text rows equal the masked full model's in every layer; dropped tokens have zero rows and weights."""
    model = FACTORIES[family]()
    model.set_attn_implementation("eager")
    inputs = make_inputs(model, PROMPTS)
    wanted = {"output_hidden_states": True, "output_attentions": True}

    with torch.no_grad():
        output, dropped = pruned(model, inputs, layer, **wanted)
        with forbidden(model, layer, dropped, inputs["attention_mask"].bool()):
            expected = model(**positioned(model, inputs), use_cache=False, **wanted)

    rows = text_rows(inputs, dropped)
    assert len(output.hidden_states) == LAYERS + 1
    for state, true_state in zip(output.hidden_states, expected.hidden_states, strict=True):
        assert_close(state[rows], true_state[rows])
    assert not any(state[dropped].any() for state in output.hidden_states[layer + 1 :])
    assert len(output.attentions) == LAYERS
    for weights, true_weights in zip(output.attentions, expected.attentions, strict=True):
        assert_close(weights.transpose(1, 2)[rows], true_weights.transpose(1, 2)[rows])
    assert not any(weights.transpose(1, 2)[dropped].any() for weights in output.attentions[layer:])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("layer", [0, 2])
def test_attentions_of_decoded_tokens_cover_the_full_length(layer: int, cache: str) -> None:
    """While decoding, attention weights have a column for every token of the full sequence."""
    model = FACTORIES["llava-onevision"]()
    model.set_attn_implementation("eager")
    inputs = make_inputs(model, PROMPTS)
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "return_dict_in_generate": True}
    options |= {"output_attentions": True}

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=Chance()) as session:
        output = model.generate(**inputs, cache_implementation=cache, **options)
    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    with forbidden(model, layer, dropped, inputs["attention_mask"].bool()):
        expected = model.generate(**inputs, use_cache=False, **options)

    for step, true_step in zip(output.attentions, expected.attentions, strict=True):
        for weights, true_weights in zip(step, true_step, strict=True):
            columns = true_weights.shape[-1]
            assert_close(weights[:, :, -1, :columns], true_weights[:, :, -1])
            assert not weights[:, :, -1, columns:].any()


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", FACTORIES)
def test_gradients_equal_those_of_the_masked_full_model(family: str, layer: int) -> None:
    """A loss on the text is the same and sends the same gradient into every parameter that moves it."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS, "right")
    _, dropped = pruned(model, inputs, layer)
    # A token is predicted from the row before it, so only words behind text rows are asked for.
    follows = text_rows(inputs, dropped).roll(1, dims=1) & inputs["attention_mask"].bool()
    labels = inputs["input_ids"].where(follows & ~dropped, -100)

    output, _ = pruned(model, inputs, layer, labels=labels)
    gradients = torch.autograd.grad(output.loss, list(model.parameters()), allow_unused=True)
    with forbidden(model, layer, dropped, inputs["attention_mask"].bool()):
        expected = model(**positioned(model, inputs), labels=labels, use_cache=False).loss
    true_gradients = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)

    assert_close(output.loss, expected)
    moved = [(got, true) for got, true in zip(gradients, true_gradients, strict=True) if true is not None]
    assert len(moved) > LAYERS
    for got, true in moved:
        assert got is not None
        assert (got - true).abs().max() <= 1e-4 * max(float(true.abs().max()), 1e-2)


def test_gradients_survive_autocast() -> None:
    """Projecting for the selection leaves no weight without its gradient behind in autocast's cache."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PROMPTS)

    with torch.autocast("cpu", torch.bfloat16), prune_visual_tokens(model, budget=0.3, layer=1):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()

    attention = model.model.language_model.layers[1].self_attn
    assert all(part.weight.grad.abs().max() > 0 for part in (attention.q_proj, attention.k_proj, attention.v_proj))


@pytest.mark.parametrize("keep", [1, 3, torch.tensor([0, 5, -1])], ids=["last", "three", "chosen"])
@pytest.mark.parametrize("family", FACTORIES)
def test_logits_to_keep_counts_in_full_positions(family: str, keep: int | Tensor) -> None:
    """Asked for some rows only, the model returns those of the full sequence."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)

    with torch.no_grad():
        everything, _ = pruned(model, inputs, 1)
        some, _ = pruned(model, inputs, 1, logits_to_keep=keep)

    assert_close(some.logits, everything.logits[:, -keep:] if isinstance(keep, int) else everything.logits[:, keep])


@pytest.mark.parametrize("family", FACTORIES)
def test_the_model_without_head_is_pruned_too(family: str) -> None:
    """A session on the inner model gives last hidden states whose logits are those of the whole one."""
    model = FACTORIES[family]()
    inputs = positioned(model, make_inputs(model, PROMPTS))

    with torch.no_grad():
        output, dropped = pruned(model, inputs, 1)
        with prune_visual_tokens(model.model, budget=0.3, layer=1, selector=Chance()):
            states = model.model(**inputs).last_hidden_state

    assert torch.equal(model.lm_head(states), output.logits)
    assert not states[dropped].any()


@pytest.mark.parametrize("family", FACTORIES)
def test_tuples_come_back_as_tuples(family: str) -> None:
    """`return_dict=False` gives what it gives without pruning, in the same order."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)

    with torch.no_grad():
        output, _ = pruned(model, inputs, 1)
        parts, _ = pruned(model, inputs, 1, return_dict=False)

    assert isinstance(parts, tuple)
    assert torch.equal(parts[0], output.logits)


@pytest.mark.parametrize("layer", [0, LAYERS - 1])
@pytest.mark.parametrize("family", FACTORIES)
def test_a_budget_of_one_is_bit_identical_to_no_pruning(family: str, layer: int) -> None:
    """Nothing is dropped, nothing is changed, and the record says so."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)
    options = {"do_sample": False, "max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}

    expected = model.generate(**inputs, **options)
    with prune_visual_tokens(model, budget=1.0, layer=layer) as session:
        output = model.generate(**inputs, **options)

    assert torch.equal(torch.stack(output.logits), torch.stack(expected.logits))
    assert all(torch.equal(*pair) for pair in zip(session.records[-1].visual, session.records[-1].kept, strict=True))


@pytest.mark.parametrize("family", FACTORIES)
def test_text_alone_is_left_alone(family: str) -> None:
    """Prompts without visual features give bit-identical logits and no record."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [(9,), (6,)])
    options = {"do_sample": False, "max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}

    expected = model.generate(**inputs, **options)
    with prune_visual_tokens(model, budget=0.1, layer=1) as session:
        output = model.generate(**inputs, **options)

    assert torch.equal(torch.stack(output.logits), torch.stack(expected.logits))
    assert not session.records


def test_a_model_of_one_layer_can_be_pruned() -> None:
    """The only layer hides the dropped tokens, and their rows come back as zeros."""
    model = FACTORIES["qwen2.5-vl"](num_hidden_layers=1)
    inputs = make_inputs(model, PROMPTS)

    with torch.no_grad():
        output, dropped = pruned(model, inputs, 0)

    rows = text_rows(inputs, dropped)
    assert_close(output.logits[rows], true_logits(model, inputs, 0, dropped)[rows])
    assert not output.logits[dropped].any()

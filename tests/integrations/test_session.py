"""A session attaches at the call, records what it does, and leaves the model as it was, however it ends."""

import gc
from typing import Any
from weakref import ref

import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from iwp_transformers import PruningSession, prune_visual_tokens
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]


def anatomy(model: nn.Module) -> dict[str, Any]:
    """Return everything that a careless integration would leave behind: hooks, attributes, classes, functions."""
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_forward_hooks_always_called")
    parts: dict[str, Any] = {"attention": dict(ALL_ATTENTION_FUNCTIONS.items()), "config": model.config.to_dict()}
    for name, module in model.named_modules():
        state = {key: value for key, value in vars(module).items() if not key.startswith("_forward")}
        parts[name] = (type(module), sorted(state), [dict(getattr(module, hook)) for hook in hooks], module.forward)
    return parts


@pytest.fixture(params=FACTORIES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Give a miniature of each family, with what Transformers itself installs on first use installed already."""
    model = FACTORIES[request.param]()
    inputs = make_inputs(model, PROMPTS)
    model.generate(**inputs, max_new_tokens=2, output_hidden_states=True, return_dict_in_generate=True)
    return model


def test_a_with_block_leaves_the_model_as_it_was(model: nn.Module) -> None:
    """Hooks, attributes, classes, forwards and attention functions are those of before."""
    before = anatomy(model)

    with prune_visual_tokens(model, budget=0.3, layer=1):
        during = anatomy(model)
        model.generate(**make_inputs(model, PROMPTS), max_new_tokens=2)

    assert during != before
    assert anatomy(model) == before


def test_close_leaves_the_model_as_it_was_and_can_be_called_twice(model: nn.Module) -> None:
    """Without `with`, pruning lasts from the call to `close`."""
    before = anatomy(model)
    inputs = make_inputs(model, PROMPTS)

    session = prune_visual_tokens(model, budget=0.3, layer=1)
    with torch.no_grad():
        model(**inputs)
        session.close()
        session.close()
        model(**inputs)

    assert len(session.records) == 1
    assert anatomy(model) == before


def test_an_exception_inside_generate_leaves_the_model_as_it_was(model: nn.Module) -> None:
    """A failure while decoding ends the session, and the model works on."""
    before = anatomy(model)
    inputs = make_inputs(model, PROMPTS)
    expected = model.generate(**inputs, max_new_tokens=2, do_sample=False)

    def fail(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] > inputs["input_ids"].shape[1]:
            msg = "stop here"
            raise RuntimeError(msg)
        return scores

    with pytest.raises(RuntimeError, match="stop here"), prune_visual_tokens(model, budget=0.3, layer=1):
        model.generate(**inputs, max_new_tokens=4, do_sample=False, logits_processor=[fail])

    assert anatomy(model) == before
    assert torch.equal(model.generate(**inputs, max_new_tokens=2, do_sample=False), expected)


def test_a_layer_that_fails_does_not_disturb_the_next_forward(model: nn.Module) -> None:
    """What a forward had begun is forgotten when it fails, so the next one of the session is right."""
    inputs = make_inputs(model, PROMPTS)
    last = model.model.language_model.layers[-1]

    def fail(module: nn.Module, args: Any) -> None:
        msg = "stop here"
        raise RuntimeError(msg)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, torch.no_grad():
        expected = model(**inputs).logits
        handle = last.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="stop here"):
            model(**inputs)
        handle.remove()
        angles = (torch.ones(1, 3, 8), torch.zeros(1, 3, 8))
        alone = last(torch.ones(1, 3, 32), position_embeddings=angles)
        again = model(**inputs).logits

    assert alone.shape == (1, 3, 32)
    assert torch.equal(again, expected)
    assert len(session.records) == 2


def test_failing_to_attach_leaves_no_hook(model: nn.Module) -> None:
    """Errors at the call come before the first hook."""
    before = anatomy(model)

    with pytest.raises(ValueError, match="`layer`"):
        prune_visual_tokens(model, budget=0.3, layer=99)

    assert anatomy(model) == before


def test_two_sessions_on_one_model_are_an_error(model: nn.Module) -> None:
    """The second is refused, through the inner model too; after closing there is room again."""
    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        for same in (model, model.model):
            with pytest.raises(ValueError, match="open session"):
                prune_visual_tokens(same, budget=0.5)
    assert isinstance(session, PruningSession)

    prune_visual_tokens(model, budget=0.5, layer=1).close()


def test_two_models_are_pruned_independently() -> None:
    """Sessions share nothing."""
    models = [FACTORIES[family]() for family in ("llava-onevision", "qwen2.5-vl")]

    with (
        prune_visual_tokens(models[0], budget=2, layer=1) as first,
        prune_visual_tokens(models[1], budget=3, layer=2) as second,
        torch.no_grad(),
    ):
        for model in models:
            model(**make_inputs(model, PROMPTS))

    assert [len(kept) for kept in first.records[-1].kept] == [2, 2]
    assert [len(kept) for kept in second.records[-1].kept] == [3, 3]


def test_records_are_one_a_prefill_and_bounded() -> None:
    """Decoding adds none, and only the last `history` are held."""
    model = FACTORIES["llava-onevision"]()
    inputs = [make_inputs(model, [prompt]) for prompt in PROMPTS]

    with prune_visual_tokens(model, budget=0.3, layer=1, history=2) as session:
        for part in (*inputs, inputs[0]):
            model.generate(**part, max_new_tokens=3)

    assert len(session.records) == 2
    for record, part in zip(session.records, (inputs[1], inputs[0]), strict=True):
        images = (part["input_ids"][0] == model.config.image_token_id).nonzero().squeeze(1)
        assert torch.equal(record.visual[0], images)
        assert torch.isin(record.kept[0], images).all()
        assert record.kept[0].dtype == record.visual[0].dtype == torch.int64
        assert (record.kept[0].diff() > 0).all()


@pytest.mark.parametrize("change", ["picture", "words", "two tokens", "cache", "gradients", None])
def test_a_run_without_a_cache_outside_of_generate_chooses_anew(change: str | None) -> None:
    """Only `generate` decodes; the same picture under the same words and one more is a prefill of its own."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [PROMPTS[1]])
    more = torch.tensor([[5, 6] if change == "two tokens" else [5]])
    longer = {**inputs, "input_ids": torch.cat((inputs["input_ids"], more), dim=1)}
    longer["attention_mask"] = torch.ones_like(longer["input_ids"])
    if change == "picture":
        longer["pixel_values"] = inputs["pixel_values"].flip(-1)
    if change == "words":
        longer["input_ids"][0, 0] += 1

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, torch.no_grad():
        model(**inputs, use_cache=False)
        with torch.set_grad_enabled(change == "gradients"):
            model(**longer, use_cache=change == "cache")

    assert len(session.records) == 2


def test_closing_lets_go_of_inputs() -> None:
    """A closed session holds its records, and nothing of the pictures."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [PROMPTS[1]])

    session = prune_visual_tokens(model, budget=0.3, layer=1)
    with torch.no_grad():
        model(**inputs, use_cache=False)
    session.close()
    picture = ref(inputs["pixel_values"])
    inputs.clear()
    gc.collect()

    assert picture() is None

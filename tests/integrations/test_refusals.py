"""Where the answer could not be exact there is an error with the reason, and never a wrong answer."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

from iwp_transformers import family_of, prune_visual_tokens, supported_models
from tests.integrations.tiny_models import CACHE, FACTORIES, LAYERS, Image, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]


@pytest.fixture
def model() -> nn.Module:
    """Give LLaVA-OneVision."""
    return FACTORIES["llava-onevision"]()


def test_an_unsupported_model_is_a_type_error_naming_the_supported() -> None:
    """The message lists every class that is served."""
    with pytest.raises(TypeError, match="`model` is a Linear") as error:
        prune_visual_tokens(nn.Linear(2, 2), budget=0.5)

    assert all(name in str(error.value) for name in supported_models())


@pytest.mark.parametrize("family", FACTORIES)
def test_models_with_and_without_head_and_their_subclasses_are_served(family: str) -> None:
    """A subclass of a supported class belongs to its family."""
    model = FACTORIES[family]()
    derived = type("Derived", (type(model),), {})(model.config)

    assert family_of(model) is family_of(model.model) is family_of(derived)
    prune_visual_tokens(derived, budget=0.5, layer=1).close()


@pytest.mark.parametrize("layer", [-1, LAYERS, 99, 1.0, True, None])
def test_a_layer_outside_the_model_is_a_value_error(model: nn.Module, layer: Any) -> None:
    """The message says which there are."""
    with pytest.raises(ValueError, match=rf"`layer` is {layer!r}, expected an int from 0 to {LAYERS - 1}"):
        prune_visual_tokens(model, budget=0.5, layer=layer)


@pytest.mark.parametrize("budget", [0, -1, 0.0, 1.5, float("nan"), -0.2])
def test_a_bad_budget_is_a_value_error(model: nn.Module, budget: float) -> None:
    """Counts start at 1 and shares end there."""
    with pytest.raises(ValueError, match="`budget`"):
        prune_visual_tokens(model, budget=budget, layer=1)


@pytest.mark.parametrize("budget", [True, "half", None])
def test_a_budget_that_is_no_number_is_a_type_error(model: nn.Module, budget: Any) -> None:
    """Booleans are no counts."""
    with pytest.raises(TypeError, match="`budget`"):
        prune_visual_tokens(model, budget=budget, layer=1)


@pytest.mark.parametrize("name", ["magnitude", "similarity", "heads", "query"])
def test_an_unknown_name_is_a_value_error_at_the_call(model: nn.Module, name: str) -> None:
    """Names are checked before the first forward, and the known ones listed."""
    with pytest.raises(ValueError, match=rf"`{name}` is 'nonsense'.*'"):
        prune_visual_tokens(model, budget=0.5, layer=1, **{name: "nonsense"})


@pytest.mark.parametrize("history", [0, -3, 1.5, True])
def test_a_history_without_room_is_a_value_error(model: nn.Module, history: Any) -> None:
    """At least one record is held."""
    with pytest.raises(ValueError, match="`history` is"):
        prune_visual_tokens(model, budget=0.5, layer=1, history=history)


def test_something_that_is_no_strategy_is_a_type_error(model: nn.Module) -> None:
    """A strategy has `select`."""
    with pytest.raises(TypeError, match="`strategy`"):
        prune_visual_tokens(model, budget=0.5, layer=1, strategy="pc-mmr")  # type: ignore[arg-type]  # the point


def test_embeddings_without_ids_are_refused(model: nn.Module) -> None:
    """Nobody can tell which embeddings are visual."""
    embeddings = torch.ones(1, 4, 32)

    with (
        prune_visual_tokens(model, budget=0.3, layer=1),
        pytest.raises(NotImplementedError, match="`inputs_embeds` came without `input_ids`"),
    ):
        model(inputs_embeds=embeddings)


def test_packed_sequences_are_refused(model: nn.Module) -> None:
    """Several sequences in one row have no tokens of their own to choose from."""
    inputs = make_inputs(model, [PROMPTS[1]])
    half = inputs["input_ids"].shape[1] // 2
    del inputs["attention_mask"]
    positions = torch.cat((torch.arange(half), torch.arange(inputs["input_ids"].shape[1] - half)))[None]

    with prune_visual_tokens(model, budget=0.3, layer=1):
        with pytest.raises(NotImplementedError, match="packed"):
            model(**inputs, position_ids=positions, use_cache=False)
        with pytest.raises(NotImplementedError, match="packed"):
            model(**inputs, cu_seq_lens_q=torch.tensor([0, half]))


def square_mask(length: int) -> Tensor:
    """Return a causal mask of four dimensions, as somebody gives it who makes masks of his own."""
    return torch.ones(length, length, dtype=torch.bool).tril()[None, None]


@pytest.mark.parametrize("additive", [False, True])
def test_sequences_that_a_mask_keeps_apart_are_refused(model: nn.Module, additive: bool) -> None:
    """They are packed as well; a mask that hides something from everybody, or shows a prefix both ways, is served."""
    inputs = make_inputs(model, [PROMPTS[1]])
    length = inputs["input_ids"].shape[1]
    half, masks = length // 2, {}
    for name in ("apart", "without the first", "prefix"):
        masks[name] = square_mask(length)
    masks["apart"][..., half:, :half] = False
    masks["without the first"][..., 0] = False
    masks["prefix"][..., :half, :half] = True

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, torch.no_grad():
        for name, mask in masks.items():
            given = torch.zeros(mask.shape).masked_fill(~mask, -1e9) if additive else mask
            if name == "apart":
                with pytest.raises(NotImplementedError, match="packed"):
                    model(**{**inputs, "attention_mask": given})
            else:
                model(**{**inputs, "attention_mask": given})

    assert len(session.records) == len(masks) - 1


def test_masks_that_weigh_tokens_are_refused(model: nn.Module) -> None:
    """A bias by distance is no padding: nothing was pruned of such a prompt, without a word."""
    inputs = make_inputs(model, [PROMPTS[1]])
    length = inputs["input_ids"].shape[1]
    bias = -0.1 * torch.arange(1, length + 1).float().expand(1, 1, length, length)
    inputs["attention_mask"] = bias.masked_fill(~square_mask(length), torch.finfo(torch.float32).min)

    with prune_visual_tokens(model, budget=0.3, layer=1), pytest.raises(NotImplementedError, match="`attention_mask`"):
        model(**inputs)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_that_was_reset_starts_anew(model: nn.Module, kind: str) -> None:
    """After `reset` a cache takes text, and another pruned prompt, as if it were new."""
    config = model.config.get_text_config()
    cache = DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=96)
    text, inputs = make_inputs(model, [(9,)]), make_inputs(model, [PROMPTS[1]])
    options = {"max_new_tokens": 3, "do_sample": False}

    with prune_visual_tokens(model, budget=0.3, layer=1):
        fresh = [model.generate(**part, **options) for part in (text, inputs)]
        again = []
        for part in (inputs, text, inputs):
            cache.reset()
            if cache.get_seq_length():
                pytest.skip("a dynamic cache of this Transformers keeps its length when it is reset")
            again.append(model.generate(**part, **{CACHE: cache}, **options))

    assert torch.equal(again[1], fresh[0])
    assert torch.equal(again[2], fresh[1])


def test_attention_without_a_mask_function_is_refused(model: nn.Module) -> None:
    """An attention that Transformers makes no mask for would look at what was dropped."""
    inputs = make_inputs(model, PROMPTS)
    implementation = "nobody_knows"
    transformers.AttentionInterface.register(implementation, transformers.AttentionInterface()["sdpa"])
    try:
        model.model.language_model.config._attn_implementation = implementation
        with (
            prune_visual_tokens(model, budget=0.3, layer=1),
            pytest.raises(NotImplementedError, match="'nobody_knows' has no mask function"),
        ):
            model(**inputs)
    finally:
        del transformers.AttentionInterface._global_mapping[implementation]


def test_features_without_a_placeholder_are_warned_of(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may put features where no id says so: nothing is pruned then, and not in silence."""
    inputs, text = make_inputs(model, PROMPTS), make_inputs(model, [(9,), (5,)])
    media = {name: inputs[name] for name in ("pixel_values", "image_sizes", "batch_num_images")}
    nowhere = torch.zeros(2, 9, 1, dtype=torch.bool)
    monkeypatch.setattr(model.model, "get_placeholder_mask", lambda *_, **__: (nowhere, nowhere))

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, torch.no_grad():
        expected = model(**text).logits
        with pytest.warns(UserWarning, match="none of their placeholders stands in `input_ids`"):
            logits = model(**text, **media).logits

    assert torch.equal(logits, expected)
    assert not session.records

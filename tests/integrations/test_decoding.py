"""Every decoded token is exact: greedy, sampled, beams, with each cache, with none, and in a second turn."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import (
    assert_close,
    dropped_tokens,
    positioned,
    true_generation,
    true_logits,
    with_tokens,
)
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import CACHE, FACTORIES, LAYERS, Image, Video, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]
# Transformers 5.17 hands the images of samples with several to the wrong copies when it repeats LLaVA's samples.
ONE_EACH = [(3, Image(), 5), (2, Image(32, 16), 6)]
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_k": 20},
    "beams": {"do_sample": False, "num_beams": 3},
    "several samples": {"do_sample": True, "num_return_sequences": 2},
    "several beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
}
WAYS = [(mode, *pair) for mode in MODES for pair in (("dynamic", 0), ("static", 2))]
WAYS += [("greedy", "dynamic", 2), ("greedy", "static", 0)]
"""Mode of decoding, cache and layer: each pair of them meets."""


def assert_generates_the_truth(model: Any, inputs: dict[str, Any], layer: int, **options: Any) -> None:
    """Fail unless the pruned `generate` gives the ids and logits of the one that removes and caches nothing."""
    mode = {"max_new_tokens": 5, **options}
    oracle_mode = {name: value for name, value in mode.items() if name not in ("cache_implementation", "use_cache")}

    torch.manual_seed(0)
    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        output = model.generate(**inputs, return_dict_in_generate=True, output_logits=True, **mode)
    dropped = dropped_tokens(session.records[-1], (len(session.records[-1].kept), inputs["input_ids"].shape[1]))
    copies = dropped.shape[0] // inputs["input_ids"].shape[0]
    torch.manual_seed(0)
    expected = true_generation(model, inputs, layer, dropped[::copies], **oracle_mode)

    assert torch.equal(output.sequences, expected.sequences)
    assert_close(torch.stack(output.logits), torch.stack(expected.logits))
    assert len(session.records) == 1


@pytest.mark.parametrize(("mode", "cache", "layer"), WAYS)
@pytest.mark.parametrize("family", FACTORIES)
def test_decoded_tokens_equal_those_of_the_masked_full_model(family: str, mode: str, cache: str, layer: int) -> None:
    """Ids and logits agree in every way of decoding, with either cache."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS if mode in ("greedy", "sampled") else ONE_EACH)

    assert_generates_the_truth(model, inputs, layer, cache_implementation=cache, **MODES[mode])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llava-onevision", "qwen2.5-vl", "qwen2-vl"])
def test_videos_decode_exactly(family: str, attention: str) -> None:
    """A video and an image in one batch, under both attention implementations."""
    model = FACTORIES[family]()
    model.set_attn_implementation(attention)
    inputs = make_inputs(model, [(3, Video(), 4, Image(), 2), (2, Image(16, 32), 9)])

    assert_generates_the_truth(model, inputs, LAYERS - 1, do_sample=False)


@pytest.mark.parametrize("mode", ["greedy", "beams"])
@pytest.mark.parametrize("family", FACTORIES)
def test_decoding_without_a_cache_gives_the_same_ids(family: str, mode: str) -> None:
    """With `use_cache=False` the prompt runs again for each token and keeps what it kept, in one record."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, ONE_EACH)

    assert_generates_the_truth(model, inputs, 1, use_cache=False, **MODES[mode])


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("family", FACTORIES)
def test_a_second_text_turn_continues_on_the_same_cache(family: str, kind: str, layer: int) -> None:
    """`generate` with the cache of the first turn and longer text goes on as the masked full model would."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)
    text = model.config.get_text_config()
    cache = DynamicCache(config=text) if kind == "dynamic" else StaticCache(config=text, max_cache_len=200)
    options = {"do_sample": False, "max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        first = model.generate(**inputs, **{CACHE: cache}, **options)
        # The ragged second question is padded on the left, so there is padding within the sequence.
        question = torch.tensor([[11, 12, 13], [0, 14, 15]])
        asked = torch.tensor([[1, 1, 1], [0, 1, 1]])
        longer = with_tokens(inputs, torch.cat((first.sequences[:, inputs["input_ids"].shape[1] :], question), dim=1))
        longer["attention_mask"][:, -3:] = asked
        text_only = {name: part for name, part in longer.items() if "pixel" not in name and name != "image_sizes"}
        text_only = {
            name: part for name, part in text_only.items() if name not in ("batch_num_images", "image_grid_thw")
        }
        second = model.generate(**text_only, **{CACHE: cache}, **options)

    dropped = torch.zeros(longer["input_ids"].shape, dtype=torch.bool)
    dropped[:, : inputs["input_ids"].shape[1]] = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    expected = true_generation(model, longer, layer, dropped, do_sample=False, max_new_tokens=3)
    assert len(session.records) == 1
    assert torch.equal(second.sequences, expected.sequences)
    assert_close(torch.stack(second.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("family", FACTORIES)
def test_a_loop_of_forwards_decodes_exactly(family: str, layer: int) -> None:
    """Forwards by hand, with and without an attention mask, count positions from the full length."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [(3, Image(), 4)])
    tokens = torch.tensor([[21, 22, 23]])

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session, torch.no_grad():
        output = model(**inputs, use_cache=True)
        steps = [
            model(input_ids=tokens[:, step : step + 1], **{CACHE: output.past_key_values}, use_cache=True).logits
            for step in range(3)
        ]

    longer = with_tokens(inputs, tokens)
    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    assert_close(torch.cat(steps, dim=1), true_logits(model, longer, layer, dropped)[:, -3:])


def test_two_conversations_may_take_turns() -> None:
    """Each cache is remembered by itself, so caches of one session can be used in any order."""
    model = FACTORIES["llava-onevision"]()
    inputs = [make_inputs(model, [prompt]) for prompt in PROMPTS]
    token = torch.tensor([[33]])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session, torch.no_grad():
        outputs = [model(**part, use_cache=True) for part in inputs]
        steps = [model(input_ids=token, **{CACHE: output.past_key_values}).logits for output in outputs]

    for part, record, step in zip(inputs, session.records, steps, strict=True):
        dropped = dropped_tokens(record, part["input_ids"].shape)
        expected = true_logits(model, with_tokens(part, token), 1, dropped)
        assert_close(step, expected[:, -1:])


@pytest.mark.parametrize("layer", [0, 1])
def test_one_pruned_prompt_can_be_repeated_for_several_continuations(layer: int) -> None:
    """The cache of one sample, repeated, goes on with a batch."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [PROMPTS[0]])
    tokens = torch.tensor([[33], [34], [35]])

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        cache.batch_repeat_interleave(3)
        logits = model(input_ids=tokens, **{CACHE: cache}).logits

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    for token, row in zip(tokens, logits, strict=True):
        expected = true_logits(model, with_tokens(inputs, token[None]), layer, dropped)
        assert_close(row, expected[0, -1:])


def test_the_language_model_may_be_called_by_itself_on_a_pruned_cache() -> None:
    """Ids given to the inner text stack continue the sequence as exactly as through the whole model."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PROMPTS)
    tokens = torch.tensor([[33], [34]])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session, torch.no_grad():
        cache = model(**positioned(model, inputs), use_cache=True).past_key_values
        positions = inputs["attention_mask"].sum(1, keepdim=True)
        text = model.model.language_model
        mask = with_tokens(inputs, tokens)["attention_mask"]
        states = text(tokens, attention_mask=mask, position_ids=positions, **{CACHE: cache}).last_hidden_state

    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    expected = true_logits(model, with_tokens(inputs, tokens), 1, dropped)
    assert_close(model.lm_head(states), expected[:, -1:])


def test_a_placeholder_that_the_model_samples_is_text() -> None:
    """An image id among decoded tokens brings no features: it is decoded on, and kept."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [(3, Image(), 4)])
    token = torch.tensor([[model.config.image_token_id]])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session, torch.no_grad():
        output = model(**inputs, use_cache=True)
        step = model(input_ids=token, **{CACHE: output.past_key_values}).logits

    assert len(session.records) == 1
    assert torch.isfinite(step).all()
    assert positioned(model, inputs)["position_ids"].shape == inputs["input_ids"].shape

"""Sliding windows and chunks keep counting in original positions when tokens between were removed."""

import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import assert_close
from tests.integrations.test_exactness import scattered
from tests.integrations.test_record import cached_bytes
from tests.integrations.tiny_models import CACHE, FACTORIES, LAYERS, Image, make_inputs
from tests.models.oracle import steps, true_logits, true_steps

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]
TYPES = ["full_attention", "sliding_attention"] * (LAYERS // 2)
BUDGET, NEW = 0.3, 14
"""Share of visual tokens kept, and decoded tokens: more than the smallest window."""

WAYS = [
    (attention, pattern, window, (number + 2 * (attention == "sdpa")) % LAYERS)
    for number, (pattern, window) in enumerate(product(["all", "full first", "sliding first"], [5, 12, 40]))
    for attention in ("eager", "sdpa")
]
"""Attention, pattern, window and layer: each pair of them meets."""


@pytest.fixture(autouse=True)
def unconcerned() -> Iterator[None]:
    """Leave alone what Transformers warns of its own configurations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def windowed(pattern: str, window: int) -> Any:
    """Return a model of which all layers slide, or every other."""
    if pattern == "all":
        return FACTORIES["llava-next"](model_type="mistral", sliding_window=window)
    kinds = TYPES if pattern == "full first" else TYPES[::-1]
    return FACTORIES["llava-onevision"](use_sliding_window=True, sliding_window=window, layer_types=kinds)


def dropped(session: Any, inputs: dict[str, Any]) -> Tensor:
    """Return which tokens the last record says were dropped, shape (B, T)."""
    record = session.records[-1]
    gone = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for row, visual, kept in zip(gone, record.visual, record.kept, strict=True):
        row[visual], row[kept] = True, False
    return gone


@pytest.mark.parametrize(("attention", "pattern", "window", "layer"), WAYS)
def test_decoding_equals_the_masked_full_model(attention: str, pattern: str, window: int, layer: int) -> None:
    """Windows smaller than what is kept, than an image, and longer than the prompt; any layer; padded at the left."""
    model = windowed(pattern, window)
    model.set_attn_implementation(attention)
    inputs = make_inputs(model, PROMPTS)

    with prune_visual_tokens(model, budget=BUDGET, layer=layer, selector=scattered) as session:
        decoded = steps(model, inputs, NEW)

    assert_close(decoded, true_steps(model, inputs, layer, dropped(session, inputs), NEW))


@pytest.mark.parametrize("window", [5, 40])
@pytest.mark.parametrize("pattern", ["all", "full first", "sliding first"])
def test_bytes_count_what_a_window_lets_a_cache_hold(pattern: str, window: int) -> None:
    """Without pruning a layer would forget as well: both numbers are those of the cached tensors."""
    model = windowed(pattern, window)
    inputs = make_inputs(model, PROMPTS)

    with torch.no_grad():
        full = model(**inputs, use_cache=True).past_key_values
        with prune_visual_tokens(model, budget=BUDGET, layer=1, selector=scattered) as session:
            pruned = model(**inputs, use_cache=True).past_key_values

    summary = session.records[-1].summary()
    assert (summary.kv_bytes_full, summary.kv_bytes_pruned) == (cached_bytes(full), cached_bytes(pruned))


def test_a_stage_that_drops_nothing_costs_what_the_one_before_left() -> None:
    """Also where the layer of the second still holds all tokens, and hides what the first dropped."""
    model = windowed("sliding first", 40)
    inputs = make_inputs(model, PROMPTS)
    summaries = []

    for layer, budget in ((0, BUDGET), ((0, 1), (BUDGET, BUDGET))):
        with prune_visual_tokens(model, budget=budget, layer=layer, selector=scattered) as session, torch.no_grad():
            model(**inputs, use_cache=True)
        summaries.append(session.records[-1].summary())

    once, twice = summaries
    assert once.flops_share is not None
    assert once.flops_share < 1
    assert (twice.flops_pruned, twice.kv_bytes_pruned) == (once.flops_pruned, once.kv_bytes_pruned)
    assert twice.kv_bytes_full == once.kv_bytes_full


@pytest.mark.parametrize("pattern", ["all", "full first", "sliding first"])
def test_a_longer_turn_of_text_equals_the_masked_full_model(pattern: str) -> None:
    """Several queries at once, some whose window begins among the removed tokens, on a cache that forgets."""
    model = windowed(pattern, 12)
    inputs = make_inputs(model, [(3, Image(), 4)])
    turn = torch.arange(10, 17)[None]
    whole = {**inputs, "input_ids": torch.cat((inputs["input_ids"], turn), dim=1)}
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    cache = DynamicCache(config=model.config.get_text_config())

    with prune_visual_tokens(model, budget=BUDGET, layer=1, selector=scattered) as session, torch.no_grad():
        model(**inputs, **{CACHE: cache}, use_cache=True)
        logits = model(input_ids=turn, attention_mask=whole["attention_mask"], **{CACHE: cache}).logits

    truth = true_logits(model, whole, 1, dropped(session, inputs))
    assert_close(logits, truth[:, -turn.shape[1] :])


def test_attentions_of_a_window_stand_where_the_full_layer_has_them() -> None:
    """What was dropped weighs nothing, the widths are those without pruning, and rows still sum to one."""
    model = windowed("full first", 12)
    model.set_attn_implementation("eager")
    inputs = make_inputs(model, [(3, Image(), 4)])
    options = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_attentions": True}

    plain = model.generate(**inputs, **options).attentions
    with prune_visual_tokens(model, budget=BUDGET, layer=2, selector=scattered):
        pruned = model.generate(**inputs, **options).attentions

    for there, here in zip(plain[1:], pruned[1:], strict=True):
        assert [weights.shape for weights in there] == [weights.shape for weights in here]
        for weights in here:
            assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_windows_of_static_caches_are_refused() -> None:
    """They count rows."""
    model = windowed("full first", 12)
    inputs = make_inputs(model, PROMPTS)

    with (
        prune_visual_tokens(model, budget=BUDGET, layer=1, selector=scattered),
        pytest.raises(NotImplementedError, match="sliding_attention of a static cache counts rows"),
    ):
        model.generate(**inputs, max_new_tokens=2, cache_implementation="static")


def test_windows_of_kernels_that_count_rows_are_refused() -> None:
    """FlashAttention gets a window and no mask of it."""
    model = windowed("all", 12)
    inputs = make_inputs(model, PROMPTS)
    model.model.language_model.config._attn_implementation = "flash_attention_2"

    with (
        prune_visual_tokens(model, budget=BUDGET, layer=1, selector=scattered),
        pytest.raises(NotImplementedError, match="sliding_attention of 'flash_attention_2' counts rows"),
    ):
        model(**inputs)


def test_windows_below_the_layer_that_prunes_do_no_harm_to_static_caches() -> None:
    """Nothing is removed from them."""
    types = ["sliding_attention", *["full_attention"] * (LAYERS - 1)]
    model = FACTORIES["llava-onevision"](use_sliding_window=True, sliding_window=8, layer_types=types)
    inputs = make_inputs(model, PROMPTS)

    with prune_visual_tokens(model, budget=BUDGET, layer=2, selector=scattered) as session:
        decoded = steps(model, inputs, NEW, cache_implementation="static")

    assert_close(decoded, true_steps(model, inputs, 2, dropped(session, inputs), NEW))

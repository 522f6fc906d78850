"""A record's numbers are those that can be counted from outside: cached tensors, and operations that torch counts."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from iwp_transformers import prune_visual_tokens
from iwp_transformers.training_compression import training_compression
from tests.integrations.selectors import Chance
from tests.integrations.tiny_models import FACTORIES, LAYERS, TEXT, Image, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]


def cached_bytes(cache: Any) -> int:
    """Count the bytes of all keys and values in a cache."""
    return sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))


@pytest.mark.parametrize("layer", [0, 1, LAYERS - 1])
@pytest.mark.parametrize("family", FACTORIES)
def test_cache_bytes_are_those_of_the_cached_tensors(family: str, layer: int) -> None:
    """Full and pruned, they equal what the caches of both prefills hold."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)

    with torch.no_grad():
        full = model(**inputs, use_cache=True).past_key_values
        with prune_visual_tokens(model, budget=0.3, layer=layer, selector=Chance()) as session:
            pruned = model(**inputs, use_cache=True).past_key_values

    summary = session.records[-1].summary()
    assert summary.kv_bytes_full == cached_bytes(full)
    assert summary.kv_bytes_pruned == cached_bytes(pruned)
    assert summary.kv_bytes_saved == cached_bytes(full) - cached_bytes(pruned) > 0


def test_a_static_cache_saves_no_bytes_and_none_holds_none() -> None:
    """A static cache is allocated at full length whatever it holds."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PROMPTS)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        model.generate(**inputs, max_new_tokens=2, cache_implementation="static")
        with torch.no_grad():
            model(**inputs, use_cache=False)

    static, none = (record.summary() for record in session.records)
    assert static.kv_bytes_saved == 0 < static.kv_bytes_full
    assert none.kv_bytes_full == none.kv_bytes_pruned == 0


@pytest.mark.parametrize("layer", [1, LAYERS - 1])
@pytest.mark.parametrize("family", FACTORIES)
def test_operations_are_those_that_torch_counts(family: str, layer: int) -> None:
    """Matrix products of the decoder layers, where eager attention computes the whole square and we count half."""
    model = FACTORIES[family]()
    model.set_attn_implementation("eager")
    inputs = make_inputs(model, PROMPTS)

    def counted(blocks: nn.ModuleList) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**inputs)
        tables = counter.get_flop_counts()  # by module, each with those inside it
        names = [name for name, module in model.named_modules() if module in list(blocks)]
        return sum(sum(table.values()) for key, table in tables.items() if any(key.endswith(name) for name in names))

    blocks = model.model.language_model.layers
    full = counted(blocks)
    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=Chance()) as session:
        pruned = counted(blocks)

    record = session.records[-1]
    summary = record.summary()
    lengths = [record.padded_full] * layer + [record.padded_pruned] * (LAYERS - layer)
    above_the_diagonal = [2 * len(PROMPTS) * TEXT["hidden_size"] * n * (n - 1) for n in lengths]
    assert summary.flops_pruned == pruned - sum(above_the_diagonal)
    assert summary.flops_full == full - LAYERS * above_the_diagonal[0]
    assert summary.flops_share == summary.flops_pruned / summary.flops_full < 1


@pytest.mark.parametrize("layer", [0, 2])
def test_tokens_are_counted_for_each_layer_without_padding(layer: int) -> None:
    """Layers from the pruned one on get fewer; a first layer hides tokens and still computes them."""
    model = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, PROMPTS)

    with prune_visual_tokens(model, budget=3, layer=layer) as session, torch.no_grad():
        model(**inputs)

    summary = session.records[-1].summary()
    tokens = int(inputs["attention_mask"].sum())
    gone = summary.visual_tokens - 6
    assert summary.kept_tokens == 6
    assert summary.tokens_full == (tokens,) * LAYERS
    assert summary.tokens_pruned == (tokens,) * max(layer, 1) + (tokens - gone,) * (LAYERS - max(layer, 1))


def test_the_report_is_four_lines_of_text() -> None:
    """Tokens, cache, operations, and the time spent choosing, which is never negative."""
    model = FACTORIES["llava-onevision"]()

    with prune_visual_tokens(model, budget=0.25, layer=1) as session, torch.no_grad():
        model(**make_inputs(model, PROMPTS))

    summary = session.records[-1].summary()
    lines = str(summary).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["visual tokens", "KV cache", "prefill", "selection"]
    assert f"{summary.kept_tokens} of {summary.visual_tokens} kept" in lines[0]
    assert summary.selection_seconds > 0


def test_visual_tokens_are_counted_for_each_layer_and_on_the_average() -> None:
    """With stages, over all layers and over those from the first stage on, as `budget` means it."""
    model = FACTORIES["llava-onevision"]()

    with prune_visual_tokens(model, budget=(0.5, 0), layer=(1, 3), selector=Chance()) as session, torch.no_grad():
        model(**make_inputs(model, PROMPTS))

    summary = session.records[-1].summary()
    total = summary.visual_tokens
    assert summary.visual_by_layer == (total, total // 2, total // 2, 0)
    assert summary.mean_share == (1 + 0.5 + 0.5 + 0) / 4
    assert summary.mean_share_from_first == (0.5 + 0.5 + 0) / 3
    assert f"{summary.mean_share:.1%} over all layers" in str(summary)


@pytest.mark.parametrize(
    ("family", "patches"), [("llava-onevision", 1), ("llava-next", 1), ("qwen2.5-vl", 4), ("qwen2-vl", 4)]
)
def test_the_share_of_patches_counts_what_was_merged_in_training(family: str, patches: int) -> None:
    """Qwen2-VL merges four patches to a token before anybody prunes."""
    model = FACTORIES[family]()

    with prune_visual_tokens(model, budget=0.5, layer=1) as session, torch.no_grad():
        model(**make_inputs(model, PROMPTS))

    summary = session.records[-1].summary()
    assert summary.training_compression == patches
    assert summary.share_of_patches == summary.kept_tokens / summary.visual_tokens / patches


@pytest.mark.parametrize(
    ("config", "patches"),
    [
        (transformers.InternVLConfig(), 4.0),
        (transformers.Idefics3Config(), 4.0),
        (transformers.Gemma3Config(mm_tokens_per_image=64), None),
        (transformers.LlavaConfig(), 1.0),
        (transformers.PaliGemmaConfig(), None),
    ],
    ids=lambda each: getattr(each, "model_type", str(each)),
)
def test_training_compression_is_read_off_the_configuration(config: Any, patches: float | None) -> None:
    """By what each kind of connector is called, and None where nothing is said."""
    if config.model_type == "gemma3":
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 / 64

    assert training_compression(config) == patches

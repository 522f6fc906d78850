"""What a selector is shown is what the layer's attention function receives, for every family and kind of attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from iwp_transformers import LayerView, prune_visual_tokens
from tests.integrations.oracle import assert_close, positioned
from tests.integrations.prompts import PAIR
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import FACTORIES, LAYERS, make_inputs

SPY = "listening_sdpa"
# Text stacks in which queries are projected beside a gate, and queries and keys normed, rotated in part, not at all,
# or scaled in their own ways.
STACKS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen3.5, gated": {"model_type": "qwen3_5_text", "head_dim": 8, "layer_types": ["full_attention"] * LAYERS},
    "qwen3, normed by head": {"model_type": "qwen3", "head_dim": 8},
    "olmo2, normed over all heads": {"model_type": "olmo2"},
    "cohere2, not rotated": {"model_type": "cohere2", "layer_types": ["full_attention"] * LAYERS},
    "smollm3, some layers not rotated": {"model_type": "smollm3", "no_rope_layers": [1, 0, 0, 1]},
    "glm, half rotated": {"model_type": "glm", "head_dim": 8, "partial_rotary_factor": 0.5},
    "granite, scaled": {"model_type": "granite", "attention_multiplier": 0.2},
}


@contextmanager
def heard(model: Any, layer: int) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """Collect queries, keys and values that a layer's module hands to its attention function."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    target = model.model.language_model.layers[layer].self_attn

    def listen(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        if module is target:
            calls.append((query, key, value))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, *args, **kwargs)

    AttentionInterface.register(SPY, listen)
    AttentionMaskInterface.register(SPY, sdpa_mask)
    text = model.model.language_model
    before = text.config._attn_implementation
    text.config._attn_implementation = SPY
    try:
        yield calls
    finally:
        text.config._attn_implementation = before
        del AttentionInterface._global_mapping[SPY]
        del AttentionMaskInterface._global_mapping[SPY]


def received(model: Any, inputs: dict[str, Any], layer: int, *, rotated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return what an unpruned layer's attention receives; without rotation its rotary embedding is the identity."""

    def still(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        cos, sin = kwargs["position_embeddings"]
        return args, {**kwargs, "position_embeddings": (torch.ones_like(cos), torch.zeros_like(sin))}

    block = model.model.language_model.layers[layer]
    handle = None if rotated else block.register_forward_pre_hook(still, with_kwargs=True)
    with heard(model, layer) as calls, torch.no_grad():
        model(**positioned(model, inputs), use_cache=False)
    if handle is not None:
        handle.remove()
    (call,) = calls
    return call


def assert_shown_is_received(model: Any, layer: int) -> None:
    """Compare a view with what attention receives: rotated and not, visual, text and question tokens."""
    inputs = make_inputs(model, PAIR)
    views: list[dict[str, Any]] = []

    def look(view: LayerView) -> Tensor:
        names = ("rotated_queries", "queries", "rotated_keys", "keys", "values")
        parts = {"visual": view.visual, "text": view.text, "question": view.question}
        views.append({
            kind: (rows.positions, {name: getattr(rows, name) for name in names}) for kind, rows in parts.items()
        })
        return scattered(view)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=look), torch.no_grad():
        model(**positioned(model, inputs), use_cache=False)
    queries, keys, values = received(model, inputs, layer, rotated=True)
    still_queries, still_keys, _ = received(model, inputs, layer, rotated=False)

    true = {"rotated_queries": queries, "queries": still_queries, "rotated_keys": keys, "keys": still_keys}
    true["values"] = values
    assert len(views) == len(PAIR)
    for sample, view in enumerate(views):
        for positions, shown in view.values():
            for name, rows in shown.items():
                expected = true[name][sample][:, positions]
                assert rows.shape == expected.shape, name
                assert_close(rows, expected, tolerance=1e-5)


@pytest.mark.parametrize("layer", [0, 1, LAYERS - 1])
@pytest.mark.parametrize("family", FACTORIES)
def test_a_view_shows_what_attention_receives(family: str, layer: int) -> None:
    """Queries, keys and values of every family."""
    assert_shown_is_received(FACTORIES[family](), layer)


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("stack", STACKS)
def test_a_view_shows_what_attention_receives_whatever_the_text_stack(stack: str, layer: int) -> None:
    """Norms, partial rotation and layers that do not rotate are the layer's own business."""
    assert_shown_is_received(FACTORIES["llava-onevision"](**STACKS[stack]), layer)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_capturing_keeps_the_layers_own_attention(attention: str) -> None:
    """The forward that is captured in runs with the implementation that the model was given."""
    model = FACTORIES["llava-onevision"]()
    model.set_attn_implementation(attention)
    inputs = make_inputs(model, PAIR)
    seen = []

    def look(view: LayerView) -> Tensor:
        assert view.visual.rotated_keys.shape[1] == len(view.visual)
        seen.append(model.model.language_model.config._attn_implementation)
        return scattered(view)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=look), torch.no_grad():
        model(**inputs)

    assert seen == [attention] * 2


@pytest.mark.parametrize("layers", [(0, 2), (1, 3)], ids=str)
def test_the_entrance_shows_all_tokens_whatever_was_dropped_since(layers: tuple[int, int]) -> None:
    """Embeddings, grids and the question of the whole sample, at every stage of a padded batch of two."""
    model: Any = FACTORIES["llava-onevision"]()
    inputs = positioned(model, make_inputs(model, PAIR))
    embedded: list[Tensor] = []
    seen: list[LayerView] = []

    def drop_the_first(view: LayerView) -> Tensor:
        whole = view.entrance
        seen.append(whole)
        sample = (len(seen) - 1) % 2
        assert torch.equal(whole.visual.hidden, embedded[0][sample, whole.visual.positions])
        return torch.arange(len(view.visual) - view.budget, len(view.visual))

    with (
        model.model.language_model.layers[0].register_forward_pre_hook(
            lambda _m, args: embedded.append(args[0].clone())
        ),
        prune_visual_tokens(model, budget=(0.5, 0.25), layer=layers, selector=drop_the_first) as session,
        torch.no_grad(),
    ):
        model(**inputs)

    assert len(seen) == 4
    for number, whole in enumerate(seen):
        sample = number % 2
        visual = session.records[-1].visual[sample]
        assert whole.at_entrance
        assert torch.equal(whole.visual.positions, visual)
        assert sum(grid.numel() for grid in whole.grids) == len(visual)
        assert int(whole.question.positions[0]) > int(visual[0])

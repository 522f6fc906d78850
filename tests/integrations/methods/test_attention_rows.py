"""Attention rows, earlier states, ids and grids that a rule may ask of its view: shown is what the model computes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers.masks import allowed_rows
from tests.integrations.oracle import assert_close, positioned
from tests.integrations.prompts import BOTH, PAIR, first_ones
from tests.integrations.test_views import STACKS
from tests.integrations.tiny_models import FACTORIES, LAYERS, Image, Video, make_inputs

LAYER = 2
# Attention that is more than a softmax of scaled products: capped logits, a sink for each head, windows.
OTHERS: dict[str, dict[str, Any]] = {
    "gemma2, capped": {
        "model_type": "gemma2",
        "head_dim": 8,
        "attn_logit_softcapping": 2.0,
        "layer_types": ["full_attention"] * LAYERS,
    },
    "gpt-oss, sinks": {
        "model_type": "gpt_oss",
        "head_dim": 8,
        "layer_types": ["full_attention"] * LAYERS,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "qwen2, windows": {"layer_types": ["sliding_attention"] * LAYERS, "sliding_window": 16, "use_sliding_window": True},
}


def rows_seen(model: Any, inputs: dict[str, Any], attention: str, side: str = "question") -> list[tuple[Tensor, ...]]:
    """Return positions of queries and candidates, and the weights that a view shows, for each sample."""
    model.set_attn_implementation(attention)
    seen: list[tuple[Tensor, ...]] = []

    def look(view: LayerView) -> Tensor:
        queries = getattr(view, side)
        seen.append((queries.positions, view.visual.positions, view.attention_rows(queries)))
        return first_ones(view)

    with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=look), torch.no_grad():
        model(**positioned(model, inputs))
    return seen


def assert_rows_are_the_models(model: Any, inputs: dict[str, Any], attention: str) -> None:
    """Compare with the weights that the whole model returns when it attends eagerly."""
    seen = rows_seen(model, inputs, attention)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(**positioned(model, inputs), output_attentions=True).attentions[LAYER - 1]
    for sample, (queries, visual, rows) in enumerate(seen):
        expected = weights[sample][:, queries][..., visual]
        assert rows.shape == expected.shape
        assert expected.std() > 1e-3
        assert_close(rows, expected)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", BOTH)
def test_attention_rows_are_those_of_the_eager_model(family: str, attention: str, padding: str) -> None:
    """Whatever kernel runs, the rows of the chosen queries alone, for a padded batch."""
    model = FACTORIES[family]()

    assert_rows_are_the_models(model, make_inputs(model, PAIR, padding), attention)


@pytest.mark.parametrize("stack", STACKS | OTHERS)
def test_attention_rows_are_those_of_the_eager_model_whatever_the_text_stack(stack: str) -> None:
    """Norms, scales, caps, sinks and windows are the layer's own business."""
    model = FACTORIES["llava-onevision"](**(STACKS | OTHERS)[stack])

    # Some of these are implemented by eager attention alone.
    assert_rows_are_the_models(model, make_inputs(model, PAIR), "eager" if stack in OTHERS else "sdpa")


@pytest.mark.parametrize("kind", ["none", "padding", "square", "blocks"])
@pytest.mark.parametrize("window", [None, 3])
def test_what_a_query_may_see_is_read_off_every_kind_of_mask(kind: str, window: int | None) -> None:
    """Of two samples, the second padded on the left; kernels without a square mask are told their window beside it."""
    real = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]).bool()
    if kind == "none":
        real[:] = True
    truth = torch.tensor([
        [
            [key <= query and bool(real[sample, key]) and (window is None or query - key < window) for key in range(6)]
            for query in range(6)
        ]
        for sample in range(2)
    ])
    masks = {
        "none": None,
        "padding": real.long(),
        "square": torch.zeros(2, 1, 6, 6).masked_fill(~truth[:, None], torch.finfo(torch.float32).min),
        "blocks": create_block_mask(lambda b, _h, q, k: truth[b, q, k], 2, None, 6, 6, device="cpu"),
    }
    rows = torch.tensor([2, 5])

    for sample in range(2):
        allowed = allowed_rows(masks[kind], torch.arange(6), rows, sample, window)
        assert allowed[0, 0].tolist() == truth[sample, rows].tolist()


@pytest.mark.parametrize("family", FACTORIES)
def test_a_view_shows_the_layer_before_embeddings_ids_and_the_last_token(family: str) -> None:
    """As the model returns them, and without padding."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    seen: list[dict[str, Any]] = []

    def look(view: LayerView) -> Tensor:
        seen.append({
            "visual": view.visual.positions,
            "before": view.before(view.visual).hidden,
            "first": view.embedded(view.question).hidden,
            "question": view.question.positions,
            "normed": view.normed(view.visual),
            "ids": view.ids,
            "last": view.last.positions,
            "unpadded": view.unpadded_positions(view.visual),
        })
        return first_ones(view)

    with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=look), torch.no_grad():
        model(**positioned(model, inputs))
    with torch.no_grad():
        hidden = model(**positioned(model, inputs), output_hidden_states=True).hidden_states
        norm = model.model.language_model.norm
        for sample, view in enumerate(seen):
            real = inputs["attention_mask"][sample].bool()
            assert_close(view["before"], hidden[LAYER - 1][sample, view["visual"]], tolerance=1e-6)
            assert_close(view["first"], hidden[0][sample, view["question"]], tolerance=1e-6)
            assert_close(view["normed"], norm(hidden[LAYER][sample, view["visual"]]), tolerance=1e-5)
            assert view["ids"].tolist() == inputs["input_ids"][sample][real].tolist()
            assert view["last"].tolist() == [int(real.nonzero()[-1])]
            assert (view["visual"] - view["unpadded"]).unique().tolist() == [int(real.nonzero()[0])]


GRIDS = {
    "llava-onevision": [(4, 4), (1, 1), (4, 4), (1, 1), (4, 4), (8, 4), (1, 8), (2, 2), (2, 2), (1, 1)],
    "llava-next": [(4, 4), (6, 8), (1, 6), (4, 4), (8, 4), (1, 8)],
    "qwen2.5-vl": [(3, 4), (2, 2), (4, 2), (2, 2), (2, 2)],
    "qwen2-vl": [(3, 4), (2, 2), (4, 2), (2, 2), (2, 2)],
}


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("family", BOTH)
def test_grids_hold_every_token_once_also_while_generating(family: str, beams: int) -> None:
    """Pictures that were encoded ahead of the prefill, and samples that are repeated, have theirs."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [(Image(), 2, Image(16, 16), 3), (2, Image(32, 16), 6), (Video(), 4)])
    seen: list[list[Tensor]] = []

    def look(view: LayerView) -> Tensor:
        seen.append(list(view.grids))
        return first_ones(view)

    with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=look):
        model.generate(**inputs, max_new_tokens=2, num_beams=beams, do_sample=False)

    assert len(seen) == 3 * beams
    assert [tuple(grid.shape) for grids in seen[::beams] for grid in grids] == GRIDS[family]
    for grids in seen:
        indices = torch.cat([grid.flatten() for grid in grids])
        assert indices.sort().values.tolist() == list(range(len(indices)))

"""The two architectures: genuine classes, small, with enough layers, heads and visual tokens for pruning to matter."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from iwp_miniature.architectures import ARCHITECTURES, Architecture, architecture
from tests.miniature.conftest import DrawBatch

CLASSES = {"llava-onevision": "LlavaOnevisionForConditionalGeneration"}
CLASSES |= {"qwen2.5-vl": "Qwen2_5_VLForConditionalGeneration"}


def test_the_two_families_are_there() -> None:
    """By the names of the command line."""
    assert {name: item.name for name, item in ARCHITECTURES.items()} == {name: name for name in CLASSES}


def test_a_model_is_of_the_librarys_own_class(kind: Architecture, model: Any) -> None:
    """No subclass and no copy."""
    assert type(model) is getattr(transformers, CLASSES[kind.name]) is kind.model_class


def test_a_model_is_small_enough_to_ship(model: Any) -> None:
    """At most 3 M parameters: 6 MB in bfloat16."""
    parameters = {id(parameter): parameter for parameter in model.parameters()}.values()

    assert sum(parameter.to(torch.bfloat16).nbytes for parameter in parameters) <= 6e6


def test_the_decoder_is_deep_and_groups_its_queries(model: Any) -> None:
    """At least eight layers, fewer key/value heads than query heads, heads of 32, as the projections have them."""
    layers = model.model.language_model.layers

    assert len(layers) >= 8
    for layer in layers:
        queries, keys = layer.self_attn.q_proj.out_features, layer.self_attn.k_proj.out_features
        assert layer.self_attn.head_dim == 32
        assert queries % keys == 0
        assert queries // keys > 1


def test_words_are_embedded_and_predicted_by_one_table(model: Any) -> None:
    """What the alignment teaches the tower is what the head reads."""
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_weights_follow_torchs_seed(kind: Architecture) -> None:
    """The same seed, the same weights; another, others."""
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.detach().flatten() for p in kind.random_model().parameters()]))

    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "grid"), [(item.name, grid) for item in ARCHITECTURES.values() for grid in item.grids], ids=str
)
def test_a_patch_stands_for_each_visual_token(name: str, grid: tuple[int, int]) -> None:
    """As many as `get_image_features` returns for a picture of each grid, at least 100 everywhere."""
    kind = architecture(name)
    model = kind.random_model()
    picture = np.zeros((24 * grid[0], 24 * grid[1], 3), dtype=np.uint8)
    pixels = kind.image_processor([picture], return_tensors="pt")

    patches = kind.patches(pixels)

    with torch.no_grad():
        (features,) = model.model.get_image_features(**pixels, return_dict=True).pooler_output
    assert len(patches) == len(features) >= 100


@settings(max_examples=15)
@given(height=st.integers(20, 220), width=st.integers(20, 220))
@pytest.mark.parametrize("name", CLASSES)
def test_pictures_of_any_shape_have_their_patches(name: str, height: int, width: int) -> None:
    """Padding that the model cuts off again, and resizing, leave as many patches as visual tokens."""
    kind = architecture(name)
    torch.manual_seed(0)
    model = kind.random_model()
    pixels = kind.image_processor([np.zeros((height, width, 3), dtype=np.uint8)], return_tensors="pt")

    patches = kind.patches(pixels)

    with torch.no_grad():
        (features,) = model.model.get_image_features(**pixels, return_dict=True).pooler_output
    assert len(patches) == len(features)


def test_onevision_has_144_visual_tokens_or_more(draw_batch: DrawBatch, kind: Architecture) -> None:
    """A shrunken view, crops of twice its width, and a newline a row; Qwen has 144 without them."""
    batch, _ = draw_batch((4, 4))

    visual = batch.packing.visual
    assert visual.stop - visual.start == {"llava-onevision": 36 + 144 + 12, "qwen2.5-vl": 144}[kind.name]


def test_qwens_visual_tokens_follow_the_size_of_the_picture() -> None:
    """Nine a cell: more cells, more tokens."""
    kind = architecture("qwen2.5-vl")
    sizes = sorted(kind.grids, key=lambda grid: grid[0] * grid[1])
    counts = []
    for rows, columns in sizes:
        picture = np.zeros((24 * rows, 24 * columns, 3), dtype=np.uint8)
        counts.append(len(kind.patches(kind.image_processor([picture], return_tensors="pt"))))

    assert counts == [9 * rows * columns for rows, columns in sizes]
    assert len(set(counts)) >= 3
    assert all(few <= many for few, many in pairwise(counts))


def test_an_unknown_architecture_is_named_with_the_known() -> None:
    """`name`, what it was, what is allowed."""
    with pytest.raises(ValueError, match=r"`name` is 'llava', expected one of 'llava-onevision', 'qwen2\.5-vl'"):
        architecture("llava")

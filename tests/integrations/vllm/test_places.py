"""Multimodal positions of shortened prompts, against those that Transformers gives the whole prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from iwp_vllm.places import Span, grid_places, on_equal_axes, prompt_positions, read_places, row_places, with_places
from tests.integrations.tiny_models import IMAGE_ID, VISION_END, VISION_START, qwen2_5_vl

GRIDS = [(1, 4, 6), (1, 8, 2), (1, 4, 8)]
"""Frames, rows and columns of patches of three images."""

MERGE = 2


@pytest.fixture(scope="module")
def whole() -> tuple[Tensor, Tensor, Any]:
    """Return token ids with three images among text, and the positions that the model gives them."""
    model = qwen2_5_vl()
    assert model.config.vision_config.spatial_merge_size == MERGE
    ids = [5, 6]
    for frames, rows, columns in GRIDS:
        ids += [VISION_START, *[IMAGE_ID] * (frames * rows * columns // MERGE**2), VISION_END, 7]
    row = torch.tensor([ids])
    kinds = (row == IMAGE_ID).int()
    positions, delta = model.model.get_rope_index(row, mm_token_type_ids=kinds, image_grid_thw=torch.tensor(GRIDS))
    return row[0], positions[:, 0], int(delta)


def spans(ids: Tensor, kept: list[Tensor | None]) -> tuple[list[Span], list[Tensor]]:
    """Return where the items stand in the shortened prompt, and which rows of the whole prompt stay."""
    found, rows, done, offset = [], [], 0, 0
    for (frames, height, width), keep in zip(GRIDS, kept, strict=True):
        places = grid_places(frames, height // MERGE, width // MERGE)
        visual = (ids == IMAGE_ID).nonzero()[:, 0]
        start = int(visual[visual >= done][0])
        stay = torch.arange(places.shape[1]) if keep is None else keep
        rows += [torch.arange(done, start), start + stay]
        offset += start - done
        found.append(Span(offset=offset, length=len(stay), places=places))
        done, offset = start + places.shape[1], offset + len(stay)
    return found, [*rows, torch.arange(done, len(ids))]


@pytest.mark.parametrize(
    "kept",
    [
        [None, None, None],
        [torch.tensor([0, 3, 5]), None, torch.tensor([2])],
        [torch.tensor([5]), torch.tensor([1, 2]), torch.tensor([0, 3, 7])],
    ],
    ids=["all", "some of two", "some of all"],
)
def test_kept_tokens_and_text_stand_where_they_stand_in_the_whole_prompt(
    whole: tuple[Tensor, Tensor, Any], kept: list[Tensor | None]
) -> None:
    """What vLLM is told, with what the embeddings carry, is the whole prompt's positions; so is the next token's."""
    ids, positions, delta = whole
    items, rows = spans(ids, kept)
    left = torch.cat(rows)

    told, added = prompt_positions(len(left), items)
    for span, keep in zip(items, kept, strict=True):
        if keep is not None:
            embeddings = with_places(torch.ones(len(keep), 4, dtype=torch.bfloat16), span.places[:, keep])
            told[:, span.offset : span.offset + span.length] += read_places(embeddings, 4)[1]

    assert torch.equal(told, positions[-3:, left])
    assert len(left) + added == len(ids) + delta


def test_frames_of_a_video_step_in_time_and_text_follows_the_last_of_all_axes() -> None:
    """As in vLLM: three frames, 1.5 positions apart and rounded down, behind one token of text."""
    places = grid_places(3, 1, 2, 1.5)

    positions, added = prompt_positions(8, [Span(offset=1, length=6, places=places)])

    assert positions.tolist() == [[0, 1, 1, 2, 2, 4, 4, 5], [0, 1, 1, 1, 1, 1, 1, 5], [0, 1, 2, 1, 2, 1, 2, 5]]
    assert added == -2


def test_images_in_a_row_leave_their_gaps_and_text_follows_the_whole_of_them() -> None:
    """Two of five tokens stay behind one token of text, then all of two: as counted in the whole prompt of nine."""
    kept = torch.tensor([1, 4])
    spans_of_it = [Span(offset=1, length=2, places=row_places(5)), Span(offset=4, length=2, places=row_places(2))]

    positions, added = prompt_positions(7, spans_of_it)
    positions[:, 1:3] += row_places(5)[:, kept]

    assert positions.tolist() == [[0, 2, 5, 6, 7, 8, 9]] * 3
    assert added == 3


def test_plain_rotary_embeddings_take_equal_axes_over_all_pairs_of_channels() -> None:
    """Each pair belongs to one axis; whoever has axes keeps them, and other types of embeddings are left alone."""
    plain = SimpleNamespace(rope_parameters={"rope_type": "default"}, hidden_size=128, num_attention_heads=4)
    own = SimpleNamespace(rope_parameters={"rope_type": "default", "mrope_section": [2, 4, 10]})
    yarn = SimpleNamespace(rope_parameters={"rope_type": "yarn", "factor": 4.0})

    for config in (plain, own, yarn):
        on_equal_axes(config)

    assert sum(plain.rope_parameters["mrope_section"]) == 128 // 4 // 2
    assert own.rope_parameters["mrope_section"] == [2, 4, 10]
    assert "mrope_section" not in yarn.rope_parameters


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_places_survive_every_dtype(dtype: torch.dtype) -> None:
    """Up to 65,535, though bfloat16 counts to 256."""
    places = torch.stack([torch.arange(0, 65536, 97)] * 3)
    embeddings = torch.randn(places.shape[1], 5).to(dtype)

    rows, read = read_places(with_places(embeddings, places), 5)

    assert torch.equal(read, places)
    assert torch.equal(rows, embeddings)


def test_a_place_too_large_is_refused() -> None:
    """Rather than wrapped around."""
    with pytest.raises(ValueError, match="spans 65537 positions"):
        with_places(torch.ones(1, 2), torch.tensor([[0], [65536], [0]]))


def test_embeddings_without_places_are_left_alone() -> None:
    """An image that lost nothing stands in a grid that vLLM knows."""
    embeddings = torch.ones(3, 4)

    rows, places = read_places(embeddings, 4)

    assert rows is embeddings
    assert places.tolist() == [[0, 0, 0]] * 3

"""Masks of the rows that stay, against loops over samples, queries and keys."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iwp_transformers.masks import PADDING, block_mask, hide_columns, take_columns, take_rows_and_columns
from iwp_transformers.rows import KeptRows, kept_rows

FORMS = ("padding", "boolean", "float", "blocks")


@dataclass(frozen=True)
class Prompt:
    """What may be attended to in a batch of prompts behind `before` cached tokens, and which tokens stay."""

    allowed: Tensor  # (B, T, before + T)
    padding: Tensor  # (B, before + T)
    keep: Tensor  # (B, T)
    before: int

    @property
    def rows(self) -> KeptRows:
        """The tokens that stay, in a rectangle."""
        return kept_rows(self.keep, int(self.keep.sum(1).max()))

    def mask(self, form: str, room: int = 0) -> Any:
        """Return the mask as a layer gets it, with `room` columns of a static cache behind."""
        if form == "padding":
            return self.padding.long()
        wide = F.pad(self.allowed, (0, room))[:, None]
        if form == "blocks":
            return block_mask(lambda b, _h, q, k: wide[b, 0, q, k], *wide[:, 0].shape, wide.device)
        return wide if form == "boolean" else torch.zeros(wide.shape).masked_fill(~wide, torch.finfo(torch.float32).min)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """Draw ragged prompts of a few tokens, padded on either side, some of which stay."""
    batch, length, before = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(0, 2))

    def drawn(count: int) -> Tensor:
        one = st.lists(st.booleans(), min_size=count, max_size=count)
        return torch.tensor(draw(st.lists(one, min_size=batch, max_size=batch)))

    real = torch.cat((torch.ones(batch, before, dtype=torch.bool), drawn(length)), dim=1)
    causal = torch.ones(length, before + length, dtype=torch.bool).tril(before)
    itself = torch.eye(length, before + length, dtype=torch.bool).roll(before, dims=1)
    keep = drawn(length)
    keep[0, -1] = True
    return Prompt((causal & real[:, None]) | itself, real, keep, before)


def dense(mask: Any, form: str, shape: tuple[int, int, int]) -> Tensor:
    """Return any square mask as booleans of shape (B, Q, K)."""
    if form == "blocks":
        samples, queries, keys = (torch.arange(count) for count in shape)
        grid = torch.meshgrid(samples, queries, keys, indexing="ij")
        return mask.mask_mod(grid[0], torch.zeros_like(grid[0]), grid[1], grid[2])
    assert mask.shape == (shape[0], 1, *shape[1:])
    return mask[:, 0] if form == "boolean" else mask[:, 0] == 0


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30)
@given(prompt=prompts(), room=st.integers(0, 2))
def test_a_shortened_mask_allows_what_the_full_one_allows_among_the_rows_that_stay(
    form: str, prompt: Prompt, room: int
) -> None:
    """Nobody attends to filling or to room that is not filled yet; a filling row may attend to itself."""
    rows, before = prompt.rows, prompt.before
    batch, count = rows.index.shape
    keys = before + count + room

    mask = take_rows_and_columns(prompt.mask(form, room), rows, keys, before)

    if form == "padding":
        for sample in range(batch):
            behind = [
                bool(r) and bool(prompt.padding[sample, before + i]) for i, r in zip(*row(rows, sample), strict=True)
            ]
            assert mask[sample].tolist() == [1] * before + [int(each) for each in behind]
        return
    answer = dense(mask, form, (batch, count, keys))
    for sample in range(batch):
        index, real = row(rows, sample)
        for query in range(count):
            if not real[query]:
                assert answer[sample, query, before + query]
                continue
            given_before = prompt.allowed[sample, index[query], :before].tolist()
            among = [
                r and bool(prompt.allowed[sample, index[query], before + i]) for i, r in zip(index, real, strict=True)
            ]
            assert answer[sample, query].tolist() == [*given_before, *among, *[False] * room]


def row(rows: KeptRows, sample: int) -> tuple[list[int], list[bool]]:
    """Return index and `real` of one sample."""
    return rows.index[sample].tolist(), rows.real[sample].tolist()


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30)
@given(prompt=prompts())
def test_columns_that_are_hidden_are_forbidden_and_no_others(form: str, prompt: Prompt) -> None:
    """Those behind cached tokens, which stay as they are."""
    shown = torch.cat((torch.ones(len(prompt.keep), prompt.before, dtype=torch.bool), prompt.keep), dim=1)

    mask = hide_columns(prompt.mask(form), prompt.keep, prompt.before)

    if form == "padding":
        assert torch.equal(mask, (prompt.padding & shown).long())
    else:
        assert torch.equal(dense(mask, form, tuple(prompt.allowed.shape)), prompt.allowed & shown[:, None])


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30)
@given(prompt=prompts(), data=st.data())
def test_taken_columns_are_the_old_ones_where_live(form: str, prompt: Prompt, data: st.DataObject) -> None:
    """Each sample may name other columns, in any order."""
    batch, width = prompt.padding.shape
    one = st.lists(st.integers(0, width - 1), min_size=3, max_size=3)
    index = torch.tensor(data.draw(st.lists(one, min_size=batch, max_size=batch)))
    live = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=batch, max_size=batch))
    )

    mask = take_columns(prompt.mask(form), index, live)

    if form == "padding":
        assert mask.ndim == PADDING
        assert torch.equal(mask, (prompt.padding.gather(1, index) & live).long())
    else:
        queries = prompt.allowed.shape[1]
        wanted = prompt.allowed.gather(2, index[:, None].expand(-1, queries, -1)) & live[:, None]
        assert torch.equal(dense(mask, form, (batch, queries, 3)), wanted)

"""Moving rows out and back, against loops that a reader believes."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iwp_transformers.masks import real_tokens
from iwp_transformers.rows import kept_rows, restored_attention

keeps = st.integers(1, 4).flatmap(
    lambda batch: st.integers(1, 9).flatmap(
        lambda length: st.lists(
            st.lists(st.booleans(), min_size=length, max_size=length), min_size=batch, max_size=batch
        )
    )
)


def rows_of(keep: Tensor) -> int:
    """Return the largest number of rows kept in a sample."""
    return int(keep.sum(1).max())


@given(keeps)
def test_scattering_what_was_gathered_zeroes_exactly_what_was_dropped(keep: list) -> None:
    """Kept rows come back where they were, all others are zero."""
    kept = torch.tensor(keep)
    states = torch.arange(1.0, kept.numel() * 2 + 1).reshape(*kept.shape, 2)
    rows = kept_rows(kept, rows_of(kept))

    back = rows.scatter(rows.gather(states, 1))

    assert torch.equal(back, states * kept.unsqueeze(-1))


@given(keeps)
def test_kept_rows_stay_in_order_at_the_right(keep: list) -> None:
    """Each sample's real rows are its kept positions, ascending, behind the filling."""
    kept = torch.tensor(keep)

    rows = kept_rows(kept, rows_of(kept))

    for sample in range(len(keep)):
        positions = [i for i, stays in enumerate(keep[sample]) if stays]
        filling = rows_of(kept) - len(positions)
        assert rows.index[sample, filling:].tolist() == positions
        assert rows.real[sample].tolist() == [False] * filling + [True] * len(positions)
        assert rows.columns()[sample].tolist() == [-1] * filling + positions


def test_rotary_embeddings_of_one_row_serve_the_whole_batch() -> None:
    """States of batch size 1 are gathered for every sample."""
    kept = torch.tensor([[True, False, True], [False, True, True]])
    angles = torch.arange(3.0)[None, :, None]

    assert kept_rows(kept, 2).gather(angles, 1).squeeze(-1).tolist() == [[0.0, 2.0], [1.0, 2.0]]


@given(keeps, st.integers(0, 3))
def test_attention_comes_back_to_full_positions(keep: list, room: int) -> None:
    """A weight between two kept tokens stands at their positions; room behind the keys is ignored."""
    kept = torch.tensor(keep)
    batch, length = kept.shape
    rows = kept_rows(kept, rows_of(kept))
    full = torch.rand(batch, 1, length, length) + 1
    short = torch.zeros(batch, 1, rows_of(kept), rows_of(kept) + room)
    for sample, index in enumerate(rows.index.tolist()):
        for q, i in enumerate(index):
            for k, j in enumerate(index):
                short[sample, 0, q, k] = full[sample, 0, i, j]

    back = restored_attention(short, rows.columns(), rows.columns(), (length, length))

    pairs = kept[:, None, :, None] & kept[:, None, None, :]
    assert torch.equal(back, full * pairs)


@given(keeps)
def test_rows_are_found_among_rows_that_hold_them(keep: list) -> None:
    """What is kept later stands where it stood among what was kept before."""
    outer = torch.tensor(keep)
    inner = outer & (torch.arange(outer.shape[1]) % 2 == 0)
    first, second = kept_rows(outer, rows_of(outer)), kept_rows(inner, rows_of(inner))

    place = second.within(first)

    assert torch.equal(first.index.gather(1, place)[second.real], second.index[second.real])


@given(keeps, st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 2))
def test_padding_is_read_from_any_form_of_mask(real: list, square: bool, boolean: bool, room: int, before: int) -> None:
    """Of two dimensions, or square: of a static cache with room behind, behind earlier turns, as booleans or floats."""
    padding = torch.tensor(real)
    length = padding.shape[1]
    mask: Tensor = padding.long()
    if square:
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.nn.functional.pad(causal & padding[:, None, None, :], (0, room))
        mask = torch.nn.functional.pad(mask, (before, 0), value=True)
        if not boolean:
            mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)

    prepared = {"full_attention": mask} if square and boolean else mask
    assert torch.equal(real_tokens(prepared, (len(real), length), padding.device, before), padding)


def test_no_mask_means_no_padding() -> None:
    """None, also where it stands for the layers' type."""
    for mask in (None, {"full_attention": None}):
        assert real_tokens(mask, (2, 3), torch.device("cpu")).all()
        assert real_tokens(mask, (2, 3), torch.device("cpu")).shape == (2, 3)

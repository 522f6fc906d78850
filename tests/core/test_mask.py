"""``mask=``: padding is never kept, counts for nothing, and every row is answered as by a call of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iwp_core import MMR, PCMMR, Strategy, TopK, select_tokens
from tests.libraries import Library
from tests.strategies import sample

LENGTHS = (12, 5, 1, 9)
TOTAL = 14


def padded(*, fill: float = 0.0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a batch of samples of several lengths, padded at random places, and the samples."""
    generator = np.random.default_rng(0)
    alone = []
    batch = {
        "keys": np.full((4, 2, TOTAL, 4), fill), "values": np.full((4, 2, TOTAL, 4), fill),
        "queries": np.zeros((4, 4, 4)), "hidden": np.full((4, TOTAL, 7), fill), "mask": np.zeros((4, TOTAL), bool),
    }  # fmt: skip
    for row, length in enumerate(LENGTHS):
        tokens = sample(row, tokens=length, heads=2, group=2, width=4, value_width=4)
        where = np.sort(generator.choice(TOTAL, length, replace=False))
        hidden = generator.standard_normal((length, 7))
        batch["keys"][row][:, where], batch["values"][row][:, where] = tokens.keys, tokens.values
        batch["queries"][row], batch["mask"][row, where] = tokens.queries, True
        batch["hidden"][row][where] = hidden
        alone.append({"keys": tokens.keys, "values": tokens.values, "queries": tokens.queries, "hidden": hidden})
    return batch, alone


def each_alone(batch: dict[str, Any], alone: list[dict[str, Any]], budget: float, **options: Any) -> np.ndarray:
    """Answer each sample by its own call, as positions in the padded row, filled with -1."""
    answers = [
        np.flatnonzero(mask)[select_tokens(**tokens, budget=budget, **options)]
        for tokens, mask in zip(alone, batch["mask"], strict=True)
    ]
    filled = np.full((len(answers), max(map(len, answers))), -1)
    for row, answer in zip(filled, answers, strict=True):
        row[: len(answer)] = answer
    return filled


@pytest.mark.parametrize("strategy", [PCMMR(), MMR(), TopK()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("similarity", ["dual", "hidden"])
@pytest.mark.parametrize("budget", [1, 4, 20, 0.5, 1.0])
def test_a_padded_batch_is_one_call_a_sample(budget: float, similarity: str, strategy: Strategy) -> None:
    """Shares count real tokens, and shorter answers end with -1."""
    batch, alone = padded()
    options = {"similarity": similarity, "strategy": strategy}

    kept = select_tokens(**batch, budget=budget, **options)

    np.testing.assert_array_equal(kept, each_alone(batch, alone, budget, **options))
    assert kept.dtype == np.int64


def test_a_padded_batch_is_answered_by_every_library(xp: Library) -> None:
    """The same in each, with its own integers and booleans; where every length is compiled, by the least work."""
    batch, alone = padded()
    options = {"strategy": TopK()} if xp.slow_to_compile else {}

    kept = select_tokens(**{name: xp.array(array) for name, array in batch.items()}, budget=0.5, **options)

    np.testing.assert_array_equal(xp.numpy(kept), each_alone(batch, alone, 0.5, **options))


@pytest.mark.parametrize("fill", [np.nan, np.inf, 1e300])
def test_what_stands_at_padding_is_not_read(fill: float) -> None:
    """Not even to be refused: memory that nobody wrote holds anything."""
    batch, alone = padded(fill=fill)

    np.testing.assert_array_equal(select_tokens(**batch, budget=0.5), each_alone(batch, alone, 0.5))


def test_a_real_token_that_is_not_finite_is_refused_behind_a_mask() -> None:
    """The mask excuses padding only."""
    batch, _ = padded(fill=np.nan)
    batch["values"][1, 0, np.flatnonzero(batch["mask"][1])[0], 0] = np.nan

    with pytest.raises(ValueError, match="`values` has NaN"):
        select_tokens(**batch, budget=3)


def test_a_mask_of_true_changes_nothing() -> None:
    """All tokens are real without one."""
    tokens = sample(3)
    arrays = (tokens.keys, tokens.values, tokens.queries)

    kept = select_tokens(*arrays, 5, mask=np.ones(tokens.keys.shape[1], dtype=bool))

    np.testing.assert_array_equal(kept, select_tokens(*arrays, 5))


def test_a_mask_goes_without_a_head_axis() -> None:
    """Keys (N, D) take a mask (N,)."""
    keys = np.asarray([[9.0, 0.0], [1.0, 0.0], [2.0, 0.0]])

    kept = select_tokens(keys, np.ones((3, 2)), keys[0], 1, mask=np.asarray([False, True, True]))

    assert kept.tolist() == [2]


@pytest.mark.parametrize("validate", [True, False])
def test_a_row_without_a_real_token_is_refused(validate: bool) -> None:
    """Nothing can be kept of nothing."""
    batch, _ = padded()
    batch["mask"][2] = False

    with pytest.raises(ValueError, match="`mask` has a row without a real token"):
        select_tokens(**batch, budget=3, validate=validate)


@pytest.mark.parametrize(
    ("mask", "error"),
    [(np.ones((4, TOTAL)), TypeError), (np.ones((4, TOTAL), int), TypeError), ([True] * TOTAL, TypeError),
     (np.ones(TOTAL, bool), ValueError), (np.ones((4, TOTAL - 1), bool), ValueError)],
    ids=["floats", "integers", "list", "no batch", "other length"],
)  # fmt: skip
def test_a_mask_is_boolean_and_has_an_entry_a_token(mask: object, error: type[Exception]) -> None:
    """Numbers could be weights, so they are no mask; the message names it."""
    batch, _ = padded()

    with pytest.raises(error, match="`mask`"):
        select_tokens(**(batch | {"mask": mask}), budget=3)

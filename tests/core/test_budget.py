"""The budget: how many tokens are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iwp_core import TopK, select_tokens
from tests import oracles

CASES = [
    (1, 10, 1), (7, 10, 7), (10, 10, 10), (11, 10, 10), (10**9, 10, 10), (1.0, 10, 10), (0.5, 10, 5), (0.25, 10, 3),
    (0.05, 10, 1), (0.04, 10, 1), (1e-12, 10, 1), (0.35, 10, 4), (0.222, 729, 162), (0.353, 729, 257), (0.111, 729, 81),
    (0.999, 2, 2), (0.3, 1, 1), (np.int64(4), 10, 4), (np.float64(0.5), 10, 5),
]  # fmt: skip


def kept(budget: float, candidates: int) -> int:
    """Count the tokens that `select_tokens` keeps."""
    rows = np.arange(candidates, dtype=np.float64)[:, None]
    return len(select_tokens(rows, rows, None, budget, magnitude="value_norm", strategy=TopK()))


@pytest.mark.parametrize(("budget", "candidates", "expected"), CASES)
def test_a_budget_is_a_count_or_a_fraction_rounded_half_up(budget: float, candidates: int, expected: int) -> None:
    """An int counts tokens, a float takes a share; at least one token and at most all are kept."""
    assert kept(budget, candidates) == expected


@given(budget=st.floats(0.0, 1.0, exclude_min=True) | st.integers(1, 60), candidates=st.integers(1, 40))
@example(budget=0.5, candidates=1)
def test_every_budget_is_the_contracts_formula(budget: float, candidates: int) -> None:
    """max(1, floor(budget N + 0.5)) for a share, min(budget, N) for a count."""
    assert kept(budget, candidates) == oracles.number_kept(budget, candidates)

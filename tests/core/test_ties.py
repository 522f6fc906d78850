"""Exact ties, as blank image regions give them, go to the lower index on every library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_core import MMR, PCMMR, Strategy, TopK, select_tokens
from tests import oracles
from tests.libraries import Library
from tests.strategies import Tokens, sample

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def with_blanks(seed: int, tokens: int, kinds: int, **sizes: int) -> tuple[Tokens, np.ndarray]:
    """Draw tokens of which many are bit-identical: each is one of a few kinds, at random places."""
    kind = np.random.default_rng(seed).integers(kinds, size=tokens)
    return sample(seed, tokens=kinds, **sizes).at(kind), kind


def lower_index_first(kept: np.ndarray, kind: np.ndarray) -> bool:
    """Tell whether of each kind of identical tokens exactly the first ones are kept."""
    members = (np.flatnonzero(kind == which) for which in np.unique(kind))
    return all(np.array_equal(np.intersect1d(kept, group), group[: np.isin(group, kept).sum()]) for group in members)


def test_the_check_itself_can_fail() -> None:
    """Keeping the second of two equals is seen."""
    kind = np.array([0, 1, 0])

    assert lower_index_first(np.array([0, 1]), kind)
    assert not lower_index_first(np.array([1, 2]), kind)


@dtypes
@pytest.mark.parametrize("strategy", [TopK(), PCMMR(), PCMMR(exponent=1), MMR()], ids=repr)
@pytest.mark.parametrize("budget", [3, 0.111, 0.5, 0.9])
def test_of_identical_tokens_the_first_are_kept(xp: Library, strategy: Strategy, budget: float, dtype: str) -> None:
    """Whatever the rule, no kept token has an identical one before it that was dropped."""
    xp.skip_if_shapes_are_compiled()
    tokens, kind = with_blanks(0, 97, 9, width=16, value_width=8)

    kept = select_tokens(*xp.arrays(tokens, dtype), budget, strategy=strategy)

    assert lower_index_first(xp.numpy(kept), kind)


@dtypes
@pytest.mark.parametrize(("tokens", "kinds"), [(3000, 7), (3000, 400), (9001, 50)])
def test_ties_hold_across_tiles(xp: Library, tokens: int, kinds: int, dtype: str) -> None:
    """Identical tokens score identically wherever a tile or a vector register begins or ends."""
    xp.skip_if_shapes_are_compiled()
    drawn, kind = with_blanks(1, tokens, kinds, heads=2, group=2, width=32, value_width=32)

    for strategy in (TopK(), PCMMR()):
        kept = xp.numpy(select_tokens(*xp.arrays(drawn, dtype), 0.111, strategy=strategy))
        assert len(kept) == oracles.number_kept(0.111, tokens)
        assert lower_index_first(kept, kind)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 5, 100, 2999])
def test_of_tokens_that_are_all_identical_the_first_are_kept(xp: Library, count: int, dtype: str) -> None:
    """An image of one colour keeps its first tokens."""
    xp.skip_if_shapes_are_compiled()
    drawn = sample(2, tokens=1, width=24, value_width=24).at(np.zeros(3000, dtype=np.intp))

    kept = xp.numpy(select_tokens(*xp.arrays(drawn, dtype), count))

    np.testing.assert_array_equal(kept, np.arange(count))


@pytest.mark.parametrize("strategy", [TopK(), PCMMR(), MMR()], ids=lambda s: type(s).__name__)
def test_of_a_dozen_identical_tokens_the_first_are_kept(xp: Library, strategy: Strategy) -> None:
    """The same in the one small shape that every library can afford."""
    tokens, kind = with_blanks(3, 12, 3)

    assert lower_index_first(xp.numpy(select_tokens(*xp.arrays(tokens), 5, strategy=strategy)), kind)


@given(seed=st.integers(0, 2**32 - 1), kinds=st.integers(1, 6), budget=st.integers(1, 40))
def test_identical_tokens_are_chosen_as_by_algorithm_1(xp: Library, seed: int, kinds: int, budget: int) -> None:
    """With ties everywhere the tokens kept are still the plain algorithm's, one by one."""
    xp.skip_if_shapes_are_compiled()
    drawn, _ = with_blanks(seed, 40, kinds)

    kept = xp.numpy(select_tokens(*xp.arrays(drawn), budget))

    np.testing.assert_array_equal(kept, oracles.select_tokens(drawn.queries, drawn.keys, drawn.values, budget))

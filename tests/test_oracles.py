"""The oracle itself, held to still plainer arithmetic: exact fractions, direct exponentials, explicit operators."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles
from tests.strategies import sample

SEEDS = st.integers(0, 2**32 - 1)


def exact_pc_mmr(scores: list[Fraction], table: list[list[Fraction]], count: int) -> list[int]:
    """Algorithm 1 on exact fractions, multiplying scores as it is printed."""
    scores = list(scores)
    chosen: list[int] = []
    left = set(range(len(scores)))
    size = 2
    while len(chosen) < count:
        newest = sorted(left, key=lambda i: (-scores[i], i))[: min(size, count - len(chosen))]
        chosen += newest
        left -= set(newest)
        for u in left:
            scores[u] *= max(Fraction(1, 100), 1 - 5 * max(table[u][j] for j in newest))
        size *= 2
    return chosen


@given(seed=SEEDS)
def test_algorithm_1_in_logarithms_is_algorithm_1_in_exact_fractions(seed: int) -> None:
    """Where no two products tie, logarithms order them alike."""
    rng = np.random.default_rng(seed)
    scores, table = rng.random(14), rng.random((14, 14)) ** 3
    exact = [[Fraction(x) for x in row] for row in table]

    for count in (1, 5, 14):
        found = oracles.pc_mmr(np.log(scores), oracles.pair_lookup(table), count)
        assert found == exact_pc_mmr([Fraction(x) for x in scores], exact, count)


@given(seed=SEEDS)
def test_the_log_magnitude_is_the_logarithm_of_the_plain_formula(seed: int) -> None:
    """Equation 10 with small logits, by exponentials and a min-max scaling of their mean."""
    tokens = sample(seed)
    logits = np.einsum("hd,hnd->hn", tokens.queries, tokens.keys[[0, 0, 1, 1]]) / 2.0
    raw = np.mean(np.exp(logits) * np.linalg.norm(tokens.values[[0, 0, 1, 1]], axis=-1), axis=0)

    found = np.exp(oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values))

    np.testing.assert_allclose(found, (raw - raw.min()) / (raw.max() - raw.min()), atol=1e-12)


@pytest.mark.parametrize("kernel", oracles.KERNELS)
@given(seed=SEEDS)
def test_the_duplication_is_the_mean_squared_cosine_of_explicit_operators(kernel: str, seed: int) -> None:
    """Equation 12 from operators written out entry by entry, two heads."""
    tokens = sample(seed, tokens=6, width=2, spread=0.7)

    squares = []
    for head in range(2):
        flat = oracles.update_operators(tokens.keys[head], tokens.values[head], kernel).reshape(6, -1)
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        squares.append((flat @ flat.T) ** 2)

    found = oracles.duplication(tokens.keys, tokens.values, kernel=kernel)
    np.testing.assert_allclose(found, np.mean(squares, axis=0), atol=1e-10)


@pytest.mark.parametrize("kernel", oracles.KERNELS)
def test_duplication_pair_by_pair_is_the_full_table(kernel: str) -> None:
    """The form that large samples use gives the same numbers."""
    tokens = sample(0, tokens=20, clusters=4)
    rows, cols = np.array([3, 19, 0]), np.array([7, 3])

    block = oracles.lazy_duplication(tokens.keys, tokens.values, kernel)(rows, cols)

    table = oracles.duplication(tokens.keys, tokens.values, kernel=kernel)
    np.testing.assert_allclose(block, table[np.ix_(rows, cols)], atol=1e-14)


def test_identical_tokens_get_identical_numbers() -> None:
    """Otherwise the oracle could not say where a tie goes."""
    kind = np.random.default_rng(0).integers(5, size=700)
    tokens = sample(1, tokens=5, width=32, value_width=32).at(kind)
    scores = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values)
    block = oracles.lazy_duplication(tokens.keys, tokens.values)(np.arange(700), np.array([0, 350, 699]))

    for which in range(5):
        assert len(np.unique(scores[kind == which])) == 1
        assert len(np.unique(block[kind == which], axis=0)) == 1


def test_the_features_of_the_oracle_reproduce_the_exponential_kernel() -> None:
    """Taylor features of degree 30 have the kernel as their inner product, so the operators are the kernel's."""
    x = 0.7 * np.random.default_rng(0).normal(size=(8, 2))
    phi = oracles.features(x)

    np.testing.assert_allclose(phi @ phi.T, np.exp(x @ x.T / np.sqrt(2.0)), rtol=1e-12)

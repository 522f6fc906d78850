"""The contract's numeric bars: the same tokens as a float64 reference on the same inputs, and never a NaN."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest

import iwp_core
from tests import oracles
from tests.libraries import Library
from tests.strategies import Tokens, sample

REALISTIC = [
    {"tokens": 600, "heads": 2, "group": 2, "width": 32, "value_width": 32, "clusters": 40},
    {"tokens": 1000, "heads": 2, "group": 4, "width": 64, "value_width": 64, "clusters": 60, "key_bias": 300.0},
    {"tokens": 2000, "heads": 2, "group": 2, "width": 64, "value_width": 32, "clusters": 150, "key_bias": 300.0},
]


def realistic(index: int, seed: int) -> Tokens:
    """Draw clustered tokens at a model's size; with a key bias their logits reach the hundreds."""
    return sample(seed, **REALISTIC[index], query_bias=10.0, noise=0.5)


@cache
def expected(index: int, seed: int, count: int) -> frozenset[int]:
    """Return what the oracle keeps of a realistic sample, once for all libraries."""
    tokens = realistic(index, seed)
    return frozenset(oracles.select_tokens(tokens.queries, tokens.keys, tokens.values, count))


def share_kept_alike(xp: Library, dtype: str, index: int, seeds: range) -> float:
    """Return the share of the oracle's tokens that the library keeps too, from the same rounded inputs."""
    alike = total = 0
    for seed in seeds:
        tokens = realistic(index, seed)
        arrays = xp.arrays(tokens, dtype)
        keys, values, queries = (xp.numpy(x).astype(np.float64) for x in arrays)
        count = oracles.number_kept(0.222, tokens.count)

        kept = xp.numpy(iwp_core.select_tokens(*arrays, 0.222))
        alike += len(set(kept) & set(oracles.select_tokens(queries, keys, values, count)))
        total += count
    return alike / total


def test_the_realistic_logits_reach_the_hundreds() -> None:
    """The bars below are about that range, and about clusters near enough for penalties to matter."""
    tokens = realistic(1, 0)
    logits = np.einsum("hd,hnd->hn", tokens.queries[::4], tokens.keys) / 8.0
    scores = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values)

    assert np.abs(logits).max() > 100.0
    assert set(oracles.top_k(scores, 222)) != expected(1, 0, 222)


@pytest.mark.parametrize("index", range(len(REALISTIC)))
def test_float64_keeps_the_oracles_tokens(xp: Library, index: int) -> None:
    """Not one token differs."""
    xp.skip_if_shapes_are_compiled()

    for seed in range(3):
        tokens = realistic(index, seed)
        count = oracles.number_kept(0.222, tokens.count)
        kept = iwp_core.select_tokens(*xp.arrays(tokens), 0.222)
        assert set(xp.numpy(kept)) == expected(index, seed, count)


@pytest.mark.parametrize("index", range(len(REALISTIC)))
def test_float32_keeps_at_least_995_of_1000_of_the_oracles_tokens(xp: Library, index: int) -> None:
    """Also with key biases of norm 300 and logits in the hundreds."""
    xp.skip_if_shapes_are_compiled()

    assert share_kept_alike(xp, "float32", index, range(3)) >= 0.995


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("index", range(len(REALISTIC)))
def test_half_precision_keeps_at_least_97_of_100_of_the_oracles_tokens(xp: Library, dtype: str, index: int) -> None:
    """Inputs are rounded before either side sees them; the arithmetic is at least float32."""
    if dtype not in xp.halves:
        pytest.skip(f"{xp.name} has no {dtype}")
    xp.skip_if_shapes_are_compiled()

    assert share_kept_alike(xp, dtype, index, range(2)) >= 0.97


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_few_tokens_with_a_key_bias_are_the_oracles(xp: Library, dtype: str) -> None:
    """The same bar at a size that every library runs: 80 tokens, keys of norm 300."""
    if dtype == "float64":
        xp.skip_if_shapes_are_compiled()
    tokens = sample(3, tokens=80, width=64, value_width=16, clusters=8, key_bias=300.0)
    arrays = xp.arrays(tokens, dtype)
    keys, values, queries = (xp.numpy(x).astype(np.float64) for x in arrays)

    kept = iwp_core.select_tokens(*arrays, 14)

    np.testing.assert_array_equal(xp.numpy(kept), oracles.select_tokens(queries, keys, values, 14))


EXTREMES = {
    "logits of 10^5": {"spread": 300.0},
    "keys of norm 10^4": {"key_bias": 1e4},
    "tiny keys": {"spread": 1e-6},
    "one channel": {"width": 1, "value_width": 1},
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("kernel", oracles.KERNELS)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_nothing_overflows_or_turns_into_nan(xp: Library, extreme: str, kernel: str, dtype: str) -> None:
    """Magnitudes and duplications stay within [0, 1] at any scale that the dtype can hold."""
    if kernel == "linear":
        xp.skip_if_operations_are_compiled()
    if dtype in {"float16", "bfloat16"} and dtype not in xp.halves:
        pytest.skip(f"{xp.name} has no {dtype}")
    if dtype != "float32":
        xp.skip_if_shapes_are_compiled()
    keys, values, queries = xp.arrays(sample(0, **EXTREMES[extreme]), dtype)

    results = [iwp_core.information_duplication(keys, values, metric=m, kernel=kernel) for m in ("dual", "key")]
    results += [
        iwp_core.information_magnitude(keys, values, queries, metric=m, kernel=kernel, heads=heads)
        for m in oracles.MAGNITUDES
        for heads in ("mean", "softmax_mean")
    ]
    for result in results:
        read = xp.numpy(result)
        assert ((read >= 0.0) & (read <= 1.0)).all()
    assert iwp_core.select_tokens(keys, values, queries, 5, kernel=kernel).shape == (5,)


@pytest.mark.parametrize("factor", [1e-30, 1e-18, 1e18, 1e30])
@pytest.mark.parametrize("kernel", oracles.KERNELS)
def test_lengths_whose_squares_leave_float32_are_handled(xp: Library, factor: float, kernel: str) -> None:
    """A common factor on all values cancels from magnitude and duplication, though its square is 0 or infinite."""
    tokens = sample(1)
    keys, _, queries = xp.arrays(tokens, "float32")
    scaled = xp.array(tokens.values * factor, "float32")

    magnitude = xp.numpy(iwp_core.information_magnitude(keys, scaled, queries, kernel=kernel))
    duplication = xp.numpy(iwp_core.information_duplication(keys, scaled, kernel=kernel))

    unscaled = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values, kernel=kernel)
    np.testing.assert_allclose(magnitude, np.exp(unscaled), atol=1e-4)
    np.testing.assert_allclose(duplication, oracles.duplication(tokens.keys, tokens.values, kernel=kernel), atol=1e-4)


def test_no_warning_reaches_the_caller(xp: Library) -> None:
    """Logarithms of zero and empty products are expected, so they are made in silence."""
    tokens = sample(2, key_bias=300.0)
    tokens.values[:, ::3] = 0.0
    keys, values, queries = xp.arrays(tokens, "float32")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for strategy in (iwp_core.PCMMR(), iwp_core.PCMMR(exponent=1), iwp_core.MMR(), iwp_core.TopK()):
            iwp_core.select_tokens(keys, values, queries, 5, strategy=strategy)

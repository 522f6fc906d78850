"""`information_duplication` and `update_cosine`: how much two tokens share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import iwp_core
from tests import oracles
from tests.libraries import Library
from tests.strategies import sample

metrics = pytest.mark.parametrize("metric", oracles.SIMILARITIES)
KERNELS = st.sampled_from(oracles.KERNELS)
kernels = pytest.mark.parametrize("kernel", oracles.KERNELS)


@metrics
@given(data=st.data(), kernel=KERNELS)
def test_duplication_is_the_oracles(xp: Library, metric: str, kernel: str, data: st.DataObject) -> None:
    """Every metric of table 3, with either kernel, equals the slow reading."""
    tokens = data.draw(xp.samples())

    keys, values, _ = xp.arrays(tokens)
    hidden = xp.array(tokens.hidden)
    result = iwp_core.information_duplication(keys, values, metric=metric, kernel=kernel, hidden=hidden)

    expected = oracles.duplication(tokens.keys, tokens.values, metric, kernel, tokens.hidden)
    np.testing.assert_allclose(xp.numpy(result), expected, atol=1e-9)


@metrics
def test_duplication_lies_between_zero_and_one_with_ones_on_the_diagonal(xp: Library, metric: str) -> None:
    """It is a mean of squared cosines: rounding must not carry it past one."""
    tokens = sample(0, tokens=40, clusters=3, noise=1e-4, width=16, value_width=16)
    keys, values, _ = xp.arrays(tokens, "float32")
    hidden = xp.array(tokens.hidden, "float32")

    result = xp.numpy(iwp_core.information_duplication(keys, values, metric=metric, hidden=hidden))

    assert result.dtype == np.float32
    assert result.min() >= 0.0
    assert result.max() <= 1.0
    np.testing.assert_allclose(np.diag(result), 1.0, atol=1e-6)


@metrics
def test_rows_and_columns_pick_a_block_of_the_whole(xp: Library, metric: str) -> None:
    """Shared positions (R,) and (C,) give the block that they name, in their order, repeats included."""
    tokens = sample(1)
    rows, cols = np.array([7, 0, 7, 3]), np.array([11, 2])

    keys, values, _ = xp.arrays(tokens)
    hidden = xp.array(tokens.hidden)
    block = iwp_core.information_duplication(keys, values, xp.array(rows), xp.array(cols), metric=metric, hidden=hidden)
    whole = oracles.duplication(tokens.keys, tokens.values, metric, hidden=tokens.hidden)

    np.testing.assert_allclose(xp.numpy(block), whole[np.ix_(rows, cols)], atol=1e-9)


def test_rows_without_columns_meet_every_token(xp: Library) -> None:
    """What is not given stands for all tokens, on either side."""
    tokens = sample(2)
    keys, values, _ = xp.arrays(tokens)
    whole = oracles.duplication(tokens.keys, tokens.values)
    some = xp.array(np.array([5, 1]))

    np.testing.assert_allclose(xp.numpy(iwp_core.information_duplication(keys, values, some)), whole[[5, 1]], atol=1e-9)
    np.testing.assert_allclose(
        xp.numpy(iwp_core.information_duplication(keys, values, None, some)), whole[:, [5, 1]], atol=1e-9
    )


@pytest.mark.parametrize("name", ["information_duplication", "update_cosine"])
def test_each_batch_may_ask_for_its_own_rows(xp: Library, name: str) -> None:
    """Positions (..., R) with the leading axes of keys are read a batch at a time."""
    batch = [sample(seed) for seed in range(3)]
    rows = np.array([[0, 4], [11, 3], [5, 5]])
    function = getattr(iwp_core, name)

    keys = xp.array(np.stack([tokens.keys for tokens in batch]))
    values = xp.array(np.stack([tokens.values for tokens in batch]))
    result = xp.numpy(function(keys, values, xp.array(rows)))

    for index, tokens in enumerate(batch):
        single_keys, single_values, _ = xp.arrays(tokens)
        own = xp.numpy(function(single_keys, single_values, xp.array(rows[index])))
        np.testing.assert_allclose(result[index], own, atol=1e-12)


@kernels
def test_a_token_without_value_is_similar_to_nothing(xp: Library, kernel: str) -> None:
    """A zero value vector has no direction: its cosine to every token, itself too, is zero."""
    tokens = sample(3)
    tokens.values[:, 4] = 0.0
    keys, values, _ = xp.arrays(tokens)

    cosine = xp.numpy(iwp_core.update_cosine(keys, values, kernel=kernel))
    squared = xp.numpy(iwp_core.information_duplication(keys, values, kernel=kernel))

    assert not cosine[:, 4].any()
    assert not cosine[:, :, 4].any()
    assert not squared[4].any()


@metrics
def test_a_token_of_zeros_is_similar_to_nothing_but_by_its_key(xp: Library, metric: str) -> None:
    """A cosine with zeros is zero; the exponential kernel knows a key of zeros as any other."""
    tokens = sample(3)
    for part in (tokens.keys, tokens.values, tokens.hidden):
        part[..., 4, :] = 0.0
    keys, values, _ = xp.arrays(tokens)

    squared = xp.numpy(iwp_core.information_duplication(keys, values, metric=metric, hidden=xp.array(tokens.hidden)))

    assert squared[4].any() == (metric == "kernel_key")
    assert np.isfinite(squared).all()


@given(data=st.data(), kernel=KERNELS)
def test_update_cosine_is_the_oracles_and_keeps_its_sign(xp: Library, kernel: str, data: st.DataObject) -> None:
    """Proposition 1 a head at a time; opposite values give a negative cosine."""
    tokens = data.draw(xp.samples())
    keys, values, _ = xp.arrays(tokens)

    result = xp.numpy(iwp_core.update_cosine(keys, values, kernel=kernel))

    np.testing.assert_allclose(result, oracles.update_cosine(tokens.keys, tokens.values, kernel), atol=1e-9)


@pytest.mark.parametrize("metric", ["dual", "kernel_key"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-3)])
def test_one_constant_vector_added_to_all_keys_changes_no_duplication(
    xp: Library, metric: str, dtype: str, tolerance: float
) -> None:
    """Distances of keys do not see the bias, however long: real models have biases of norm 300."""
    if dtype == "float64":
        xp.skip_if_operations_are_compiled()
    tokens = sample(4, tokens=40, clusters=5, width=64, value_width=16)
    bias = np.random.default_rng(4).normal(size=(2, 1, 64))
    moved = tokens.keys + 300.0 * bias / np.linalg.norm(bias, axis=-1, keepdims=True)

    keys, values, _ = xp.arrays(tokens, dtype)
    plain = iwp_core.information_duplication(keys, values, metric=metric)
    biased = iwp_core.information_duplication(xp.array(moved, dtype), values, metric=metric)

    np.testing.assert_allclose(xp.numpy(biased), xp.numpy(plain), atol=tolerance)


def test_half_precision_keys_with_a_bias_lose_nothing_but_their_rounding(xp: Library) -> None:
    """On the same rounded inputs, the products are kept in float32, so the answer is the oracle's."""
    if not xp.halves:
        pytest.skip(f"{xp.name} has no half-precision dtype")
    tokens = sample(5, tokens=60, clusters=6, width=64, value_width=32, key_bias=300.0)

    for dtype in xp.halves:
        keys, values, _ = xp.arrays(tokens, dtype)
        result = xp.numpy(iwp_core.information_duplication(keys, values))
        seen = oracles.duplication(xp.numpy(keys).astype(float), xp.numpy(values).astype(float))
        np.testing.assert_allclose(result, seen, atol=1e-4)
        assert (seen[~np.eye(60, dtype=bool)] > 0.1).any()

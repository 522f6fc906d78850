"""`information_magnitude` and `log_update_norm`: how much a token carries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import iwp_core
from tests import oracles
from tests.libraries import Library
from tests.strategies import sample

metrics = pytest.mark.parametrize("metric", oracles.MAGNITUDES)
kernels = pytest.mark.parametrize("kernel", oracles.KERNELS)
KERNELS = st.sampled_from(oracles.KERNELS)
reductions = pytest.mark.parametrize("heads", ["mean", "softmax_mean"])


@metrics
@given(data=st.data(), kernel=KERNELS, heads=st.sampled_from(["mean", "softmax_mean"]))
def test_magnitude_is_the_oracles(xp: Library, metric: str, data: st.DataObject, kernel: str, heads: str) -> None:
    """Every metric of table 1, with either kernel and either mean over heads, equals the slow reading."""
    tokens = data.draw(xp.samples())

    keys, values, queries = xp.arrays(tokens)
    magnitude = iwp_core.information_magnitude(keys, values, queries, metric=metric, kernel=kernel, heads=heads)

    expected = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values, metric, kernel, heads)
    np.testing.assert_allclose(xp.numpy(magnitude), np.exp(expected), atol=1e-9)


@metrics
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_magnitude_spans_zero_to_one_in_the_dtype_that_it_is_computed_in(xp: Library, metric: str, dtype: str) -> None:
    """The weakest candidate has 0, the strongest 1; float64 stays float64 and float32 float32."""
    if metric != "dual":
        xp.skip_if_operations_are_compiled()
    keys, values, queries = xp.arrays(sample(0), dtype)

    magnitude = iwp_core.information_magnitude(keys, values, queries, metric=metric)

    assert magnitude.dtype == xp.dtype(dtype)
    assert magnitude.shape == (12,)
    assert xp.numpy(magnitude).min() == 0.0
    assert xp.numpy(magnitude).max() == 1.0


@pytest.mark.parametrize("metric", oracles.QUERYLESS)
def test_a_metric_that_reads_no_query_takes_none(xp: Library, metric: str) -> None:
    """Norms of keys, values and updates need no queries, and ignore those given."""
    keys, values, queries = xp.arrays(sample(1))

    without = iwp_core.information_magnitude(keys, values, None, metric=metric)

    np.testing.assert_array_equal(
        xp.numpy(without), xp.numpy(iwp_core.information_magnitude(keys, values, queries, metric=metric))
    )


@metrics
def test_equal_candidates_all_have_magnitude_one(xp: Library, metric: str) -> None:
    """Min-max scaling of equal scores would divide zero by zero; the contract says ones."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(2).at(np.zeros(12, dtype=np.intp))
    keys, values, queries = xp.arrays(tokens)

    magnitude = iwp_core.information_magnitude(keys, values, queries, metric=metric)

    np.testing.assert_array_equal(xp.numpy(magnitude), np.ones(12))


@reductions
def test_a_token_without_value_has_magnitude_zero(xp: Library, heads: str) -> None:
    """A zero value vector adds nothing to the implicit weight."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(3)
    tokens.values[:, 4] = 0.0
    keys, values, queries = xp.arrays(tokens)

    magnitude = xp.numpy(iwp_core.information_magnitude(keys, values, queries, heads=heads))

    assert magnitude[4] == 0.0
    assert np.isfinite(magnitude).all()


@reductions
@metrics
def test_candidates_that_are_all_zero_give_no_nan(xp: Library, metric: str, heads: str) -> None:
    """Where no token carries anything, all are equal, so all have one."""
    xp.skip_if_operations_are_compiled()
    zeros = xp.array(np.zeros((2, 12, 4)))

    magnitude = iwp_core.information_magnitude(zeros, zeros, xp.array(np.zeros((4, 4))), metric=metric, heads=heads)

    np.testing.assert_array_equal(xp.numpy(magnitude), np.ones(12))


def test_softmax_mean_lets_no_head_decide_alone(xp: Library) -> None:
    """A head with large logits outshouts the raw mean; divided by its sum it has one vote like the others."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(4)
    tokens.values[...] = 1.0
    tokens.keys[...] = 0.0
    tokens.keys[0, 1], tokens.keys[1, 5] = 30.0, 60.0
    tokens.queries[...] = 1.0
    keys, values, queries = xp.arrays(tokens)

    raw = xp.numpy(iwp_core.information_magnitude(keys, values, queries))
    fair = xp.numpy(iwp_core.information_magnitude(keys, values, queries, heads="softmax_mean"))

    assert raw[1] < 1e-12
    np.testing.assert_allclose(fair[[1, 5]], 1.0, rtol=1e-9)


def test_query_heads_read_their_group_s_keys(xp: Library) -> None:
    """With 4 query heads on 2 key heads, queries 0 and 1 meet head 0, queries 2 and 3 head 1."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(5, heads=2, group=2)
    repeated = np.repeat(np.arange(2), 2)

    keys, values, queries = xp.arrays(tokens)
    grouped = iwp_core.information_magnitude(keys, values, queries)
    wide_keys, wide_values = xp.array(tokens.keys[repeated]), xp.array(tokens.values[repeated])
    wide = iwp_core.information_magnitude(wide_keys, wide_values, queries)

    np.testing.assert_allclose(xp.numpy(grouped), xp.numpy(wide), rtol=1e-12)


def test_queries_of_rank_like_keys_are_averaged_over_text(xp: Library) -> None:
    """(Hq, T, D) means T text queries a head, of which the mean is taken before the kernel."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(6)
    text = np.random.default_rng(6).normal(size=(4, 5, 4))
    keys, values, _ = xp.arrays(tokens)

    averaged = iwp_core.information_magnitude(keys, values, xp.array(text))
    single = iwp_core.information_magnitude(keys, values, xp.array(text.mean(axis=1)))

    np.testing.assert_allclose(xp.numpy(averaged), xp.numpy(single), rtol=1e-9)


@pytest.mark.parametrize("metric", ["dual", "kernel", "value_norm"])
@kernels
@pytest.mark.parametrize("block", [1, 60, 1 << 22])
def test_each_query_can_score_by_itself(
    xp: Library, metric: str, kernel: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean is then taken over what T queries score, however many of them are scored at a time."""
    monkeypatch.setattr("iwp_core.magnitude.BLOCK", block)
    tokens = sample(8, heads=2, group=2)
    text = np.random.default_rng(8).normal(size=(4, 5, 4))
    keys, values, _ = xp.arrays(tokens)

    magnitude = iwp_core.information_magnitude(
        keys, values, xp.array(text), metric=metric, kernel=kernel, heads="softmax_mean_per_query"
    )

    expected = oracles.log_magnitude_of_each_query(text, tokens.keys, tokens.values, metric, kernel)
    np.testing.assert_allclose(xp.numpy(magnitude), np.exp(expected), atol=1e-9)


def test_one_query_scores_alike_whatever_is_averaged(xp: Library) -> None:
    """With T = 1, or no axis T, there is nothing to average."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(9)
    keys, values, queries = xp.arrays(tokens)

    single = iwp_core.information_magnitude(keys, values, queries, heads="softmax_mean")
    scored = iwp_core.information_magnitude(keys, values, queries[:, None, :], heads="softmax_mean_per_query")

    np.testing.assert_array_equal(xp.numpy(scored), xp.numpy(single))


def test_a_token_that_one_query_asks_for_is_lost_in_the_mean_query_alone(xp: Library) -> None:
    """Two queries that point opposite ways cancel; each of them still finds its token."""
    xp.skip_if_operations_are_compiled()
    keys = xp.array(np.asarray([[[9.0, 0.0], [-9.0, 0.0], [0.0, 3.0], [0.0, -3.0]]]))
    values, queries = xp.array(np.ones((1, 4, 1))), xp.array(np.asarray([[[4.0, 0.1], [-4.0, 0.1]]]))

    mean = xp.numpy(iwp_core.information_magnitude(keys, values, queries, heads="softmax_mean"))
    each = xp.numpy(iwp_core.information_magnitude(keys, values, queries, heads="softmax_mean_per_query"))

    assert mean.argmax() == 2
    assert set(np.argsort(each)[-2:].tolist()) == {0, 1}


@given(data=st.data(), kernel=KERNELS)
def test_log_update_norm_is_the_oracles(xp: Library, kernel: str, data: st.DataObject) -> None:
    """Lemma 1 in logarithms, a head at a time."""
    tokens = data.draw(xp.samples())
    keys, values, _ = xp.arrays(tokens)

    result = xp.numpy(iwp_core.log_update_norm(keys, values, kernel=kernel))

    np.testing.assert_allclose(
        result, oracles.log_update_norm(tokens.keys, tokens.values, kernel), rtol=1e-9, atol=1e-9
    )


def test_log_update_norm_of_a_zero_value_is_minus_infinity(xp: Library) -> None:
    """An update that is nothing has the logarithm of zero, without a warning."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(7)
    tokens.values[1, 3] = 0.0
    keys, values, _ = xp.arrays(tokens)

    result = xp.numpy(iwp_core.log_update_norm(keys, values))

    assert result[1, 3] == -np.inf
    assert np.isfinite(np.delete(result, 3, axis=1)).all()


def test_log_update_norm_holds_where_the_norm_overflows(xp: Library) -> None:
    """Keys of length 600 give norms of e^22500, whose logarithm is an ordinary number."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(8, width=64, key_bias=600.0)
    keys, values, _ = xp.arrays(tokens, "float32")

    result = xp.numpy(iwp_core.log_update_norm(keys, values))

    np.testing.assert_allclose(result, oracles.log_update_norm(tokens.keys, tokens.values), rtol=1e-5)

"""`deletion_error`, `dual_spectrum` and `selection_overlap`: what a selection kept of the implicit weight."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import iwp_core
from tests import oracles
from tests.libraries import Library
from tests.strategies import sample

kernels = pytest.mark.parametrize("kernel", oracles.KERNELS)
SEEDS = st.integers(0, 2**32 - 1)
KERNELS = st.sampled_from(oracles.KERNELS)


def subset(seed: int, count: int) -> np.ndarray:
    """Draw half of the positions, in any order."""
    return np.random.default_rng(seed).permutation(count)[: count // 2]


@given(kernel=KERNELS, seed=SEEDS)
def test_deletion_error_is_the_distance_of_the_operators(xp: Library, kernel: str, seed: int) -> None:
    """Summed entry by entry, the operators of all and of the kept tokens lie that far apart."""
    tokens = sample(seed, tokens=8, width=2, spread=0.6)
    kept = subset(seed, 8)
    keys, values, _ = xp.arrays(tokens)

    error = xp.numpy(iwp_core.deletion_error(keys, values, xp.array(kept), kernel=kernel))

    for head in range(2):
        updates = oracles.update_operators(tokens.keys[head], tokens.values[head], kernel)
        full, part = updates.sum(axis=0), updates[kept].sum(axis=0)
        expected = np.linalg.norm(full - part) / np.linalg.norm(full)
        np.testing.assert_allclose(error[head], expected, rtol=1e-6)


@given(kernel=KERNELS, seed=SEEDS)
def test_dual_spectrum_is_the_operators_singular_values(xp: Library, kernel: str, seed: int) -> None:
    """They descend, one for each value channel, for the kept tokens or for all."""
    tokens = sample(seed, tokens=8, width=2, value_width=3, spread=0.6)
    kept = subset(seed, 8)
    keys, values, _ = xp.arrays(tokens)

    part = xp.numpy(iwp_core.dual_spectrum(keys, values, xp.array(kept), kernel=kernel))
    full = xp.numpy(iwp_core.dual_spectrum(keys, values, kernel=kernel))

    assert part.shape == full.shape == (2, 3)
    for head in range(2):
        updates = oracles.update_operators(tokens.keys[head], tokens.values[head], kernel)
        for found, operator in ((part[head], updates[kept].sum(axis=0)), (full[head], updates.sum(axis=0))):
            singular = np.zeros(3)
            true = np.linalg.svd(operator, compute_uv=False)
            singular[: len(true)] = true
            # A singular value is the root of an eigenvalue, which keeps half of its digits near zero.
            np.testing.assert_allclose(found, singular, rtol=1e-6, atol=1e-6 * singular[0])


def test_dropping_nothing_costs_nothing_and_dropping_all_costs_everything(xp: Library) -> None:
    """The error runs from zero for W_S = W_N to one for W_S = 0."""
    keys, values, _ = xp.arrays(sample(0))
    nothing = np.asarray([], dtype=np.int64)

    assert not xp.numpy(iwp_core.deletion_error(keys, values, xp.array(np.arange(12)))).any()
    np.testing.assert_allclose(xp.numpy(iwp_core.deletion_error(keys, values, xp.array(nothing))), 1.0, rtol=1e-6)


def test_tokens_without_value_cost_nothing(xp: Library) -> None:
    """Dropping them leaves the operator as it was, and a head of none but such tokens gives no NaN."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(1)
    tokens.values[:, 6:] = 0.0
    tokens.values[1] = 0.0
    keys, values, _ = xp.arrays(tokens)

    error = xp.numpy(iwp_core.deletion_error(keys, values, xp.array(np.arange(6))))

    np.testing.assert_allclose(error, 0.0, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_deletion_error_holds_where_the_kernel_overflows(xp: Library, dtype: str) -> None:
    """With key biases of norm 300 the kernel is e^11000; errors are ratios, so they stay ordinary."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(2, tokens=50, clusters=6, width=64, value_width=8, key_bias=300.0)
    kept = subset(2, 50)
    keys, values, _ = xp.arrays(tokens, dtype)
    keys64, values64 = xp.numpy(keys).astype(np.float64), xp.numpy(values).astype(np.float64)

    error = xp.numpy(iwp_core.deletion_error(keys, values, xp.array(kept)))

    np.testing.assert_allclose(
        error, log_deletion_error(keys64, values64, kept), rtol=1e-6 if dtype == "float64" else 2e-2
    )


def log_deletion_error(keys: oracles.Floats, values: oracles.Floats, kept: np.ndarray) -> oracles.Floats:
    """Lemma 3 with each head's largest kernel value divided out."""
    errors = []
    for k, v in zip(keys, values, strict=True):
        exponent = k @ k.T / np.sqrt(k.shape[-1])
        gram = np.exp(exponent - exponent.max()) * (v @ v.T)
        dropped = np.setdiff1d(np.arange(len(k)), kept)
        errors.append(np.sqrt(gram[np.ix_(dropped, dropped)].sum() / gram.sum()))
    return np.asarray(errors)


@kernels
def test_a_spectrum_has_a_logarithmic_scale_which_is_zero_where_values_fit(xp: Library, kernel: str) -> None:
    """Plain values are true values as long as the dtype holds them."""
    keys, values, _ = xp.arrays(sample(3))

    plain = iwp_core.dual_spectrum(keys, values, kernel=kernel)
    spectrum, log_scale = iwp_core.dual_spectrum(keys, values, kernel=kernel, return_log_scale=True)

    np.testing.assert_array_equal(xp.numpy(spectrum), xp.numpy(plain))
    np.testing.assert_array_equal(xp.numpy(log_scale), np.zeros(2))


def test_a_spectrum_beyond_the_dtype_is_returned_up_to_its_scale(xp: Library) -> None:
    """Values times e^log_scale are the truth; here it is told apart by the sum of squares, the norm of W."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(4, tokens=30, width=64, value_width=6, key_bias=300.0)
    keys, values, _ = xp.arrays(tokens)

    spectrum, log_scale = iwp_core.dual_spectrum(keys, values, return_log_scale=True)
    log_norm = np.log(np.linalg.norm(xp.numpy(spectrum), axis=-1)) + xp.numpy(log_scale)

    for head in range(2):
        exponent = tokens.keys[head] @ tokens.keys[head].T / 8.0
        gram = np.exp(exponent - exponent.max()) * (tokens.values[head] @ tokens.values[head].T)
        np.testing.assert_allclose(log_norm[head], 0.5 * (np.log(gram.sum()) + exponent.max()), rtol=1e-9)


@pytest.mark.parametrize("name", ["deletion_error", "dual_spectrum"])
def test_each_batch_may_keep_its_own_tokens(xp: Library, name: str) -> None:
    """Positions (..., M) with the leading axes of keys is read a batch at a time; (M,) is shared."""
    batch = [sample(seed) for seed in range(3)]
    kept = np.stack([subset(seed, 12) for seed in range(3)])
    function = getattr(iwp_core, name)
    keys = xp.array(np.stack([tokens.keys for tokens in batch]))
    values = xp.array(np.stack([tokens.values for tokens in batch]))

    own = xp.numpy(function(keys, values, xp.array(kept)))
    shared = xp.numpy(function(keys, values, xp.array(kept[0])))

    for index, tokens in enumerate(batch):
        single = xp.arrays(tokens)[:2]
        np.testing.assert_allclose(own[index], xp.numpy(function(*single, xp.array(kept[index]))), rtol=1e-9)
        np.testing.assert_allclose(shared[index], xp.numpy(function(*single, xp.array(kept[0]))), rtol=1e-9)


def test_pc_mmr_deletes_less_than_magnitude_alone_on_duplicated_tokens() -> None:
    """With few clusters the diverse set spans what the loudest tokens leave out."""
    tokens = sample(5, tokens=200, clusters=8, noise=0.05, width=8, value_width=8)
    scores = {"top": iwp_core.TopK(), "pcmmr": iwp_core.PCMMR()}

    ranks = {}
    for name, strategy in scores.items():
        kept = iwp_core.select_tokens(tokens.keys, tokens.values, tokens.queries, 10, strategy=strategy)
        spectrum = iwp_core.dual_spectrum(tokens.keys, tokens.values, kept)
        ranks[name] = np.sum(spectrum > 0.1 * spectrum[:, :1])

    assert ranks["pcmmr"] > ranks["top"]


@pytest.mark.parametrize("name", ["deletion_error", "select_tokens"])
def test_memory_beside_the_inputs_grows_with_the_tokens_and_not_with_their_square(name: str) -> None:
    """At 12000 tokens of 1 MB, a matrix of all pairs would be 576 MB and one chunk's columns 49 MB."""
    tokens = sample(6, tokens=12000, heads=1, group=1, width=8, value_width=8)
    arrays = [np.asarray(x, dtype=np.float32) for x in (tokens.keys, tokens.values, tokens.queries)]

    tracemalloc.start()
    if name == "deletion_error":
        iwp_core.deletion_error(arrays[0], arrays[1], np.arange(3000))
    else:
        iwp_core.select_tokens(*arrays, 3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 32e6


SETS = [
    ([0, 1, 2], [0, 1, 2], 1.0), ([0, 1], [2, 3], 0.0), ([0, 1, 2], [1, 2, 3], 0.5), ([5], [5, 6, 7, 8], 0.25),
    ([3, 1, 2], [2, 3, 1], 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "expected"), SETS)
def test_overlap_is_intersection_over_union(xp: Library, a: list[int], b: list[int], expected: float) -> None:
    """Order does not matter, sizes may differ."""
    result = iwp_core.selection_overlap(xp.array(np.asarray(a)), xp.array(np.asarray(b)))

    assert result.shape == ()
    assert float(xp.numpy(result)) == pytest.approx(expected)


@given(a=st.sets(st.integers(0, 30), min_size=6, max_size=6), b=st.sets(st.integers(0, 30), min_size=4, max_size=4))
def test_overlap_of_sets_is_pythons_and_symmetric(xp: Library, a: set[int], b: set[int]) -> None:
    """Two selections share what their sets share."""
    xp.skip_if_operations_are_compiled()
    first, second = xp.array(np.asarray(list(a))), xp.array(np.asarray(list(b)))

    result = float(xp.numpy(iwp_core.selection_overlap(first, second)))

    assert result == pytest.approx(len(a & b) / len(a | b))
    assert result == float(xp.numpy(iwp_core.selection_overlap(second, first)))


def test_overlap_is_taken_a_batch_at_a_time(xp: Library) -> None:
    """(B, M1) and (B, M2) give (B,)."""
    a, b = xp.array(np.asarray([[0, 1], [0, 1]])), xp.array(np.asarray([[0, 1, 2], [3, 4, 1]]))

    result = xp.numpy(iwp_core.selection_overlap(a, b))

    np.testing.assert_allclose(result, [2 / 3, 1 / 4])


def test_what_fills_a_ragged_answer_is_no_token_that_selections_share(xp: Library) -> None:
    """-1 stands for none; a row of nothing else is an empty set."""
    xp.skip_if_operations_are_compiled()
    a, b = np.asarray([[0, 3, -1], [2, -1, -1], [-1, -1, -1]]), np.asarray([[3, -1], [-1, -1], [-1, -1]])

    result = xp.numpy(iwp_core.selection_overlap(xp.array(a), xp.array(b)))

    np.testing.assert_allclose(result, [1 / 2, 0.0, 1.0])


def test_the_overlap_of_long_selections_needs_no_table_of_pairs() -> None:
    """Memory grows with the number of positions, not with their product."""
    generator = np.random.default_rng(0)
    a, b = (generator.permutation(40_000)[:5000] for _ in range(2))
    iwp_core.selection_overlap(a[:2], b[:2])  # pays for what the first call imports

    tracemalloc.start()
    overlap = float(iwp_core.selection_overlap(a, b))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert overlap == pytest.approx(np.intersect1d(a, b).size / np.union1d(a, b).size)
    assert peak < 20 * (a.nbytes + b.nbytes)

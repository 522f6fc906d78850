"""The paper's lemmas and propositions, against operators written out entry by entry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import iwp_core
from tests import oracles
from tests.libraries import Library
from tests.strategies import Tokens, sample

SEEDS = st.integers(0, 2**32 - 1)
KERNELS = st.sampled_from(oracles.KERNELS)
kernels = pytest.mark.parametrize("kernel", oracles.KERNELS)


@pytest.fixture(scope="session")
def xp(xp: Library) -> Library:
    """Leave JAX out: other files hold each of these functions to the oracle on it."""
    xp.skip_if_operations_are_compiled()
    return xp


def short_sample(seed: int) -> Tokens:
    """One head, one query, keys short enough for the truncated features to be exact."""
    return sample(seed, tokens=6, heads=1, group=1, width=2, value_width=3, spread=0.7)


def kept_of(seed: int, count: int) -> np.ndarray:
    """Draw a non-empty set of positions, ascending."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(count, size=rng.integers(1, count + 1), replace=False))


def min_max(x: oracles.Floats) -> oracles.Floats:
    """Scale to [0, 1] as appendix D does."""
    return np.asarray((x - x.min()) / (x.max() - x.min()))


@given(kernel=KERNELS, seed=SEEDS)
def test_lemma_1_gives_the_norm_of_each_update(xp: Library, kernel: str, seed: int) -> None:
    """The norm of an update is sqrt(kappa(k, k)) times the length of its value."""
    tokens = short_sample(seed)
    updates = oracles.update_operators(tokens.keys[0], tokens.values[0], kernel)

    keys, values, _ = xp.arrays(tokens)
    norm = np.exp(xp.numpy(iwp_core.log_update_norm(keys, values, kernel=kernel)))

    np.testing.assert_allclose(norm[0], np.linalg.norm(updates, axis=(1, 2)), rtol=1e-10)


@given(kernel=KERNELS, seed=SEEDS)
def test_lemma_2_gives_the_inner_product_of_each_pair(xp: Library, kernel: str, seed: int) -> None:
    """Cosine times both norms is the inner product of two updates, summed entry by entry."""
    tokens = short_sample(seed)
    updates = oracles.update_operators(tokens.keys[0], tokens.values[0], kernel)

    keys, values, _ = xp.arrays(tokens)
    norm = np.exp(xp.numpy(iwp_core.log_update_norm(keys, values, kernel=kernel)))[0]
    product = xp.numpy(iwp_core.update_cosine(keys, values, kernel=kernel))[0] * norm[:, None] * norm

    np.testing.assert_allclose(product, np.einsum("imv,jmv->ij", updates, updates), rtol=1e-8, atol=1e-10)


@given(kernel=KERNELS, seed=SEEDS)
def test_proposition_1_gives_the_cosine_of_each_pair(xp: Library, kernel: str, seed: int) -> None:
    """The cosine of two updates factors into a value cosine and a kernel cosine."""
    tokens = short_sample(seed)
    flat = oracles.update_operators(tokens.keys[0], tokens.values[0], kernel).reshape(6, -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)

    keys, values, _ = xp.arrays(tokens)
    cosine = xp.numpy(iwp_core.update_cosine(keys, values, kernel=kernel))[0]

    np.testing.assert_allclose(cosine, flat @ flat.T, atol=1e-10)


@given(kernel=KERNELS, seed=SEEDS)
def test_proposition_2_splits_the_score_into_angle_key_and_value(xp: Library, kernel: str, seed: int) -> None:
    """The score is the query's length times the cosine to the key times the update's norm."""
    tokens = short_sample(seed)
    query = oracles.features(tokens.queries, kernel)[0]
    phi = oracles.features(tokens.keys[0], kernel)
    cosine = np.abs(phi @ query) / np.linalg.norm(phi, axis=1) / np.linalg.norm(query)

    keys, values, queries = xp.arrays(tokens)
    norm = np.exp(xp.numpy(iwp_core.log_update_norm(keys, values, kernel=kernel)))[0]
    magnitude = xp.numpy(iwp_core.information_magnitude(keys, values, queries, kernel=kernel))

    np.testing.assert_allclose(magnitude, min_max(np.linalg.norm(query) * cosine * norm), atol=1e-9)


@given(kernel=KERNELS, seed=SEEDS)
def test_equation_22_the_magnitude_is_what_an_update_does_to_the_query(xp: Library, kernel: str, seed: int) -> None:
    """The magnitude is the length of phi(q) dW, scaled to [0, 1]."""
    tokens = short_sample(seed)
    updates = oracles.update_operators(tokens.keys[0], tokens.values[0], kernel)
    answers = np.einsum("m,imv->iv", oracles.features(tokens.queries, kernel)[0], updates)

    keys, values, queries = xp.arrays(tokens)
    magnitude = xp.numpy(iwp_core.information_magnitude(keys, values, queries, kernel=kernel))

    np.testing.assert_allclose(magnitude, min_max(np.linalg.norm(answers, axis=1)), atol=1e-9)


@given(kernel=KERNELS, seed=SEEDS)
def test_lemma_3_splits_the_deletion_error(xp: Library, kernel: str, seed: int) -> None:
    """The squared error is the dropped tokens' squared norms plus their mutual inner products."""
    tokens = short_sample(seed)
    kept = kept_of(seed, tokens.count)
    dropped = np.setdiff1d(np.arange(tokens.count), kept)
    total = np.linalg.norm(oracles.update_operators(tokens.keys[0], tokens.values[0], kernel).sum(axis=0))

    keys, values, _ = xp.arrays(tokens)
    norm = np.exp(xp.numpy(iwp_core.log_update_norm(keys, values, kernel=kernel)))[0, dropped]
    cosine = xp.numpy(iwp_core.update_cosine(keys, values, kernel=kernel))[0][np.ix_(dropped, dropped)]
    error = xp.numpy(iwp_core.deletion_error(keys, values, xp.array(kept), kernel=kernel))[0]

    duplication = np.sum(cosine * np.outer(norm, norm)) - np.sum(np.diag(cosine) * norm**2)
    np.testing.assert_allclose((error * total) ** 2, np.sum(norm**2) + duplication, rtol=1e-6, atol=1e-9 * total**2)


@given(kernel=KERNELS, seed=SEEDS)
def test_the_gram_matrix_of_updates_is_positive_semi_definite(xp: Library, kernel: str, seed: int) -> None:
    """Cosines of updates are inner products, and their squares stay a kernel by Schur's theorem."""
    tokens = sample(seed, clusters=3, width=3)

    keys, values, _ = xp.arrays(tokens)
    cosine = xp.numpy(iwp_core.update_cosine(keys, values, kernel=kernel))
    squared = xp.numpy(iwp_core.information_duplication(keys, values, kernel=kernel))

    for gram in (*cosine, squared):
        np.testing.assert_allclose(gram, gram.T, atol=1e-12)
        assert np.linalg.eigvalsh(gram).min() > -1e-10


@kernels
@pytest.mark.parametrize("copies", [3, 8, 40])
def test_proposition_3_magnitude_alone_collapses_the_rank_and_pc_mmr_does_not(
    xp: Library, kernel: str, copies: int
) -> None:
    """Of m equal tokens and one orthogonal, slightly weaker one, TopK keeps rank 1, the others rank 2.

    A last token of no value is added to the paper's construction: min-max scaling sends the weakest candidate to
    zero, and a product never recovers from zero.
    """
    directions = np.zeros((1, copies + 2, 2))
    directions[0, :copies, 0] = 1.0
    directions[0, copies:, 1] = 1.0
    lengths = np.concatenate([np.ones(copies), [0.99, 0.0]])[:, None]
    keys, values, queries = xp.array(directions), xp.array(directions * lengths), xp.array(np.ones((1, 2)))

    ranks = {}
    for strategy in (iwp_core.TopK(), iwp_core.PCMMR(), iwp_core.MMR()):
        kept = iwp_core.select_tokens(
            keys, values, queries, copies, magnitude="gradient_norm", strategy=strategy, kernel=kernel
        )
        spectrum = xp.numpy(iwp_core.dual_spectrum(keys, values, kept, kernel=kernel))[0]
        ranks[type(strategy).__name__] = int(np.sum(spectrum > 1e-6 * spectrum[0]))

    assert ranks == {"TopK": 1, "PCMMR": 2, "MMR": 2}

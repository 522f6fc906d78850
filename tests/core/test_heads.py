"""``heads="max"`` and power means: what a token adds to the outputs of single queries, which see other things too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_core import TopK, information_magnitude, magnitude, select_tokens
from tests import oracles
from tests.libraries import Library
from tests.strategies import Tokens, sample

POOLINGS = ["max", 1, 1.5, 4.0]
kernels = pytest.mark.parametrize("kernel", oracles.KERNELS)
poolings = pytest.mark.parametrize("heads", POOLINGS)


def asked(seed: int, queries: int = 5) -> tuple[Tokens, oracles.Floats, oracles.Floats]:
    """Draw a sample, T queries for each of its 4 heads, and the log-sum-exp of what each of them sees elsewhere."""
    tokens = sample(seed, tokens=12, heads=2, group=2)
    generator = np.random.default_rng(seed)
    text = generator.standard_normal((4, queries, tokens.keys.shape[-1]))
    return tokens, text, 3 * generator.standard_normal((4, queries))


@kernels
@poolings
@pytest.mark.parametrize("metric", ["dual", "kernel"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["candidates only", "everything"])
def test_magnitude_by_shares_is_the_oracles(
    xp: Library, metric: str, heads: str | float, kernel: str, elsewhere: bool
) -> None:
    """Softmax over all that a query sees, times the value's norm; the largest, or the power mean."""
    tokens, text, context = asked(1)
    keys, values = xp.array(tokens.keys), xp.array(tokens.values)
    options: dict[str, Any] = {"context": xp.array(context)} if elsewhere else {}

    magnitude = information_magnitude(
        keys, values, xp.array(text), metric=metric, kernel=kernel, heads=heads, **options
    )

    expected = oracles.log_magnitude_by_shares(
        text, tokens.keys, tokens.values, heads, context if elsewhere else None, metric, kernel
    )
    np.testing.assert_allclose(xp.numpy(magnitude), np.exp(expected), atol=1e-12)


@poolings
def test_selection_by_shares_is_the_oracles(xp: Library, heads: str | float) -> None:
    """The tokens that `select_tokens` keeps are those of the plain reading."""
    tokens, text, context = asked(2)
    arrays = [xp.array(x) for x in (tokens.keys, tokens.values, text)]

    kept = select_tokens(*arrays, 5, heads=heads, context=xp.array(context))

    scores = oracles.log_magnitude_by_shares(text, tokens.keys, tokens.values, heads, context)
    pairs = oracles.pair_lookup(oracles.duplication(tokens.keys, tokens.values))
    assert xp.numpy(kept).tolist() == sorted(oracles.pc_mmr(scores, pairs, 5))


@given(seed=st.integers(0, 99), heads=st.sampled_from(POOLINGS))
def test_a_context_of_nothing_is_no_context(seed: int, heads: str | float) -> None:
    """The log-sum-exp of an empty sum is minus infinity."""
    tokens, text, context = asked(seed)

    alone = information_magnitude(tokens.keys, tokens.values, text, heads=heads)
    nothing = np.full_like(context, -math.inf)

    np.testing.assert_array_equal(
        information_magnitude(tokens.keys, tokens.values, text, heads=heads, context=nothing), alone
    )


def test_a_head_that_rests_elsewhere_has_no_say() -> None:
    """Head 0 looks at token 0 and head 1 at token 1; a sink takes all of head 0."""
    keys = np.asarray([[5.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    values, queries = np.ones((3, 2)), np.asarray([[[5.0, 0.0]], [[0.0, 5.0]]])
    context = np.asarray([[100.0], [0.0]])

    kept = select_tokens(keys[None], values[None], queries, 1, heads="max", strategy=TopK(), context=context)

    assert kept.tolist() == [1]


@poolings
def test_queries_that_are_taken_in_blocks_pool_alike(heads: str | float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many scores are held at a time, the pooled ones are the same."""
    tokens, text, context = asked(3, queries=7)
    at_once = information_magnitude(tokens.keys, tokens.values, text, heads=heads, context=context)
    monkeypatch.setattr(magnitude, "BLOCK", 48)

    in_blocks = information_magnitude(tokens.keys, tokens.values, text, heads=heads, context=context)

    np.testing.assert_allclose(in_blocks, at_once, rtol=1e-12)


@poolings
def test_logits_in_the_thousands_stay_finite(heads: str | float) -> None:
    """Shares are logarithms, so a power of them does not vanish either."""
    tokens, text, context = asked(4)

    magnitude = information_magnitude(1e4 * tokens.keys, tokens.values, text, heads=heads, context=context)

    assert ((magnitude >= 0) & (magnitude <= 1)).all()


@pytest.mark.parametrize("heads", ["max", 2.0])
@pytest.mark.parametrize("metric", oracles.QUERYLESS)
def test_metrics_without_queries_pool_their_heads(heads: str | float, metric: str) -> None:
    """There is nothing to share then: the largest or the power mean of the scores themselves."""
    tokens, text, _ = asked(5)

    magnitude = information_magnitude(tokens.keys, tokens.values, text, metric=metric, heads=heads)

    raw = np.exp(oracles.log_head_scores(None, tokens.keys, tokens.values, metric, "exponential"))
    pooled = raw.max(axis=0) if heads == "max" else (raw**2).mean(axis=0) ** 0.5
    np.testing.assert_allclose(magnitude, (pooled - pooled.min()) / (pooled.max() - pooled.min()), atol=1e-12)


@pytest.mark.parametrize(
    ("heads", "error"),
    [
        ("most", ValueError),
        (0.5, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (True, TypeError),
        (None, TypeError),
    ],
    ids=repr,
)
def test_heads_is_a_known_name_or_an_exponent(heads: object, error: type[Exception]) -> None:
    """The message lists the names and the range."""
    tokens, text, _ = asked(6)

    with pytest.raises(error, match=r"`heads` is .*'softmax_mean_per_query', 'max', or a finite number p >= 1"):
        select_tokens(tokens.keys, tokens.values, text, 3, heads=heads)  # type: ignore[arg-type]


@pytest.mark.parametrize("heads", ["softmax_mean_per_query", "max", 2])
def test_averaged_queries_cannot_score_one_by_one(heads: str | float) -> None:
    """What was averaged before is no single query."""
    tokens = sample(7)

    with pytest.raises(ValueError, match=r"`queries` has shape .* expected \(\.\.\., Hq, T, D\)"):
        select_tokens(tokens.keys, tokens.values, tokens.queries, 3, heads=heads)


@pytest.mark.parametrize(
    "options", [{}, {"heads": "softmax_mean_per_query"}, {"heads": "max", "magnitude": "key_norm"}]
)
def test_a_context_that_nothing_reads_is_refused(options: dict[str, str]) -> None:
    """An argument without effect is a mistake."""
    tokens, text, context = asked(8)

    with pytest.raises(ValueError, match="`context` is given"):
        select_tokens(tokens.keys, tokens.values, text, 3, context=context, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("context", "error"),
    [(np.zeros(4), ValueError), (np.zeros((4, 4)), ValueError), (np.full((4, 5), np.nan), ValueError),
     (np.full((4, 5), np.inf), ValueError), (np.zeros((4, 5), dtype=int), TypeError), ([0.0], TypeError)],
    ids=["no queries", "other queries", "NaN", "infinity", "integers", "list"],
)  # fmt: skip
def test_a_context_has_one_finite_number_a_query(context: object, error: type[Exception]) -> None:
    """Or minus infinity; the message names the argument."""
    tokens, text, _ = asked(9)

    with pytest.raises(error, match="`context`"):
        select_tokens(tokens.keys, tokens.values, text, 3, heads="max", context=context)


def test_the_heads_of_one_head_take_a_vector_as_context() -> None:
    """Keys (N, D) and queries (T, D) leave the head axis away, and so does the context (T,)."""
    tokens, text, context = asked(10)

    kept = select_tokens(tokens.keys[0], tokens.values[0], text[0], 4, heads="max", context=context[0])

    expected = select_tokens(tokens.keys[:1], tokens.values[:1], text[:1], 4, heads="max", context=context[:1])
    np.testing.assert_array_equal(kept, expected)

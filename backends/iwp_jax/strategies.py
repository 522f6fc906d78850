"""The core's strategies as loops of static shape; each returns which tokens it chooses, shape (N,)."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from iwp_core import MMR, PCMMR, Strategy, TopK
from iwp_core.above_chance import AboveChance
from iwp_jax.chance import AboveChanceTokens
from iwp_jax.tokens import COLUMNS, Tokens

__all__ = ["chosen", "innermost"]


def innermost(strategy: Strategy) -> Any:
    """Return the strategy that chooses: what is within an `AboveChance`, or the strategy itself."""
    return innermost(strategy.strategy) if type(strategy) is AboveChance else strategy


def chosen(strategy: Strategy, tokens: Tokens | AboveChanceTokens, sizes: Array) -> Array:
    """Return which tokens `strategy` chooses; `sizes` says how many at a time, zeros behind."""
    if isinstance(strategy, AboveChance):
        return chosen(strategy.strategy, AboveChanceTokens(tokens), sizes)
    if isinstance(strategy, PCMMR):
        return _by_chunks(strategy, tokens, jnp.asarray(sizes))
    if isinstance(strategy, MMR):
        return _one_by_one(strategy, tokens, jnp.asarray(sizes)[0])
    assert isinstance(strategy, TopK)  # noqa: S101 - told by the caller
    scores = tokens.log_magnitude
    _, ranks = _ranked(scores, jnp.zeros(scores.shape, dtype=bool), tokens.real)
    return ranks < jnp.asarray(sizes)[0]


def _ranked(scores: Array, taken: Array, real: Array) -> tuple[Array, Array]:
    """Return tokens from best to worst, lower position first, those taken and not real behind; and ranks."""
    order = jnp.lexsort((-scores, jnp.where(real, taken.astype(jnp.int32), 2)))
    return order, jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0], dtype=order.dtype))


def _by_chunks(strategy: PCMMR, tokens: Tokens | AboveChanceTokens, sizes: Array) -> Array:
    """Run algorithm 1 as it is written."""
    floor = jnp.asarray(strategy.floor, dtype=tokens.log_magnitude.dtype)

    def take(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        scores, taken = state
        size = sizes[index]
        order, ranks = _ranked(scores, taken, tokens.real)
        padded = jnp.concatenate([order, jnp.zeros(COLUMNS, dtype=order.dtype)])

        def compare(tile: Array, largest: Array) -> Array:
            columns = lax.dynamic_slice(padded, (tile * COLUMNS,), (COLUMNS,))
            counts = tile * COLUMNS + jnp.arange(COLUMNS) < size
            return jnp.maximum(largest, jnp.max(jnp.where(counts, tokens.duplication(columns), 0.0), axis=1))

        is_last = jnp.sum(jnp.where(jnp.arange(sizes.shape[0]) > index, sizes, 0)) == 0
        tiles = jnp.where(is_last, 0, -(-size // COLUMNS))
        shared = lax.fori_loop(0, tiles, compare, jnp.zeros_like(scores))
        shared = shared if strategy.exponent == 2 else jnp.sqrt(shared)  # noqa: PLR2004 - the exponent of S
        factors = jnp.maximum(1.0 - strategy.penalty * shared, floor)
        return scores + jnp.log(factors), taken | (ranks < size)

    scores = strategy.tempered(tokens.log_magnitude)
    taken: Array
    _, taken = lax.fori_loop(0, sizes.shape[0], take, (scores, jnp.zeros(scores.shape, dtype=bool)))
    return taken


def _one_by_one(strategy: MMR, tokens: Tokens | AboveChanceTokens, count: Array) -> Array:
    """Run the greedy rule."""
    relevance = strategy.tradeoff * jnp.exp(tokens.log_magnitude)
    first = jnp.argmax(jnp.where(tokens.real, tokens.log_magnitude, -jnp.inf))
    everyone = jnp.arange(relevance.shape[0])

    def take(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        latest, shared, taken = state
        shared = jnp.maximum(shared, tokens.duplication(latest[None])[:, 0])
        score = jnp.where(taken | ~tokens.real, -jnp.inf, relevance - (1.0 - strategy.tradeoff) * shared)
        latest = jnp.argmax(score)
        return latest, shared, taken | (everyone == latest)

    state = first, jnp.zeros_like(relevance), everyone == first
    taken: Array
    _, _, taken = lax.fori_loop(1, count, take, state)
    return taken

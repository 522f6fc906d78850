"""Information magnitude without a branch on any number; see `iwp_core.magnitude`, whose formulas these are."""

import math

import jax.numpy as jnp
from jax import Array, lax

from iwp_core.pooling import QUERY_MAGNITUDES

__all__ = ["log_magnitude", "log_norm"]

BLOCK = 1 << 22
"""Scores held at a time."""


def log_norm(rows: Array) -> Array:
    """Return the log of the norm of the rows of (H, N, D), -inf for zeros; neither overflows nor vanishes."""
    largest = jnp.max(jnp.abs(rows), axis=-1, keepdims=True)
    scaled = rows / jnp.where(largest > 0, largest, 1)
    return jnp.log(largest[..., 0]) + 0.5 * jnp.log(jnp.sum(scaled * scaled, axis=-1))


def log_magnitude(
    keys: Array,
    values: Array,
    queries: Array | None,
    context: Array | None,
    real: Array,
    twins: Array,
    *,
    metric: str,
    kernel: str,
    heads: str | float,
) -> Array:
    """Return the log of a sample's magnitude, shape (N,), from 0 to -inf, which those that are not `real` (N,) have.

    `queries` (Hq, T, D) and `context` (Hq, T) count one by one; the caller has averaged them where that is asked for.
    """
    if queries is None or metric not in QUERY_MAGNITUDES:
        rows = _of_tokens(keys, values, metric, kernel)
        scores = _pooled(_shared(rows, None, None, real, heads) if heads == "softmax_mean" else rows, heads)
    else:
        scores = _of_queries(keys, values, queries, context, real, metric=metric, kernel=kernel, heads=heads)
    return _min_max(scores[twins], real)


def _of_tokens(keys: Array, values: Array, metric: str, kernel: str) -> Array:
    """Return the log scores that read no query, shape (H, N)."""
    if metric == "value_norm":
        return log_norm(values)
    if metric == "raw_key_norm":
        return log_norm(keys)
    in_feature_space = log_norm(keys)
    if kernel == "exponential":
        in_feature_space = 0.5 * jnp.sum(keys * keys, axis=-1) / math.sqrt(keys.shape[-1])
    return in_feature_space + log_norm(values) if metric == "gradient_norm" else in_feature_space


def _of_queries(
    keys: Array,
    values: Array,
    queries: Array,
    context: Array | None,
    real: Array,
    *,
    metric: str,
    kernel: str,
    heads: str | float,
) -> Array:
    """Return the log scores of all queries, pooled block by block, shape (N,)."""
    count, total, width = keys.shape
    asked = queries.reshape(count, -1, width)
    outside = jnp.full(asked.shape[:2], -jnp.inf, dtype=keys.dtype)
    if context is not None:
        outside = context.reshape(outside.shape).astype(keys.dtype)
    size = min(asked.shape[1], max(1, BLOCK // (count * total)))
    blocks = -(-asked.shape[1] // size)
    filling = ((0, 0), (0, blocks * size - asked.shape[1]))
    counts = jnp.pad(jnp.ones(outside.shape, dtype=bool), filling)
    asked, outside = jnp.pad(asked, (*filling, (0, 0))), jnp.pad(outside, filling)

    def cut(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(count, blocks, size, *x.shape[2:]), 1, 0)

    center = jnp.mean(keys, axis=1, keepdims=True)
    moved, lengths = keys - center, log_norm(values) if metric == "dual" else None

    def of_block(pool: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
        some, elsewhere, counting = block
        scale = 1 / math.sqrt(width) if kernel == "exponential" else 1.0
        products = [jnp.matmul(some * scale, x.mT, precision=lax.Precision.HIGHEST) for x in (moved, center)]
        logits = products[0] + products[1]
        if kernel == "linear":
            logits = jnp.log(jnp.abs(logits))
        scores = logits if lengths is None else logits + lengths[:, None, :]
        shares = _shared(scores, logits, elsewhere, real, heads)
        counted = jnp.where(counting[..., None], shares, -jnp.inf).reshape(-1, total)
        return _pooled(jnp.concatenate([pool[None, :], counted]), heads), None

    nothing = jnp.full(total, -jnp.inf, dtype=keys.dtype)
    pool, _ = lax.scan(of_block, nothing, (cut(asked), cut(outside), cut(counts)))
    return pool


def _shared(scores: Array, logits: Array | None, outside: Array | None, real: Array, heads: str | float) -> Array:
    """Return scores over their sum, or over all that a query sees, along the axis of tokens."""
    if heads == "mean":
        return scores
    seen = scores if heads == "softmax_mean" or logits is None else logits
    total = _log_sum(jnp.where(real, seen, -jnp.inf), axis=-1)
    total = jnp.where(total > -jnp.inf, total, 0.0)
    if heads != "softmax_mean" and outside is not None:
        total = jnp.logaddexp(total, outside)
    return scores - total[..., None]


def _pooled(rows: Array, heads: str | float) -> Array:
    """Pool rows (R, N) of log scores, up to a factor that all tokens share."""
    if heads == "max":
        return jnp.max(rows, axis=0)
    power = 1.0 if isinstance(heads, str) else float(heads)
    return _log_sum(rows * power, axis=0) / power


def _log_sum(rows: Array, axis: int) -> Array:
    largest = jnp.max(rows, axis=axis, keepdims=True)
    shift = jnp.where(largest > -jnp.inf, largest, 0.0)
    return jnp.squeeze(shift, axis) + jnp.log(jnp.sum(jnp.exp(rows - shift), axis=axis))


def _min_max(scores: Array, real: Array) -> Array:
    """Return the log of exp(scores) scaled to [0, 1] over real tokens; zeros when all are equal."""
    lowest, highest = jnp.min(jnp.where(real, scores, jnp.inf)), jnp.max(jnp.where(real, scores, -jnp.inf))
    finite = jnp.where(scores > lowest, scores, highest)
    above = finite + jnp.log(-jnp.expm1(lowest - finite))
    span = highest + jnp.log(-jnp.expm1(lowest - highest))
    scaled = jnp.where(scores > lowest, jnp.where(above < span, above - span, 0.0), -jnp.inf)
    return jnp.where(real, jnp.where(lowest == highest, 0.0, scaled), -jnp.inf)

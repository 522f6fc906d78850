"""Norms of tokens as logarithms, and the mean key of each head: numbers that several measures read."""

import math

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, joined, namespace, safe_log, tiles
from iwp_core._plugins import overridable

__all__ = ["key_center", "log_feature_norm", "log_norm"]

EASY = 1e12
"""Where no coordinate exceeds this and no norm falls below one over it, squares neither overflow nor vanish."""


def key_center(keys: Array, dtype: object) -> Array:
    """Return the mean key of each head, shape (H, 1, D).

    Centring leaves key distances unchanged and shifts each head's logits by a constant. Without it, large key biases
    cause cancellation: the rounding of the large common part would exceed the differences between keys.
    """
    xp = namespace(keys)
    total = sum(xp.sum(as_dtype(keys[:, tile, :], dtype), axis=-2, keepdims=True) for tile in tiles(keys.shape[-2]))
    return total / keys.shape[-2]


@overridable
def log_norm(rows: Array) -> Array:
    """Return the log of the Euclidean norm of the rows of (H, N, D), shape (H, N); -inf for a zero row."""
    dtype = accumulation_dtype(rows)
    return joined([_log_norm(as_dtype(rows[:, tile, :], dtype)) for tile in tiles(rows.shape[-2])], axis=-1)


def _log_norm(rows: Array) -> Array:
    xp = namespace(rows)
    if xp.max(rows) < EASY and xp.min(rows) > -EASY:
        squares = xp.vecdot(rows, rows)
        if xp.min(squares) > 1 / EASY**2:
            return 0.5 * xp.log(squares)
    largest = xp.max(xp.abs(rows), axis=-1, keepdims=True)
    scaled = rows / xp.where(largest > 0, largest, xp.ones_like(largest))
    return safe_log(largest[..., 0]) + 0.5 * safe_log(xp.vecdot(scaled, scaled))


def log_feature_norm(keys: Array, *, kernel: str) -> Array:
    """Return log ||phi(k_i)|| = log kappa(k_i, k_i) / 2, shape (H, N)."""
    if kernel == "linear":
        return log_norm(keys)
    xp = namespace(keys)
    dtype = accumulation_dtype(keys)
    center = key_center(keys, dtype)
    at_center = xp.sum(center * center, axis=-1)
    parts = []
    for tile in tiles(keys.shape[-2]):
        offset = as_dtype(keys[:, tile, :], dtype) - center
        parts.append(xp.vecdot(offset, offset + 2 * center) + at_center)
    return xp.concat(parts, axis=-1) / (2 * math.sqrt(keys.shape[-1]))

"""Similarities of updates as products of factors: cosines, and the Gaussian of the exponential kernel (table 3).

A factor keeps the caller's arrays and computes norms lazily; a backend with its own kernel reads only `tokens` and the
factor's type.
"""

import math
from functools import cached_property

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, joined, namespace, tiles
from iwp_core._plugins import overridable
from iwp_core.norms import key_center, log_norm

__all__ = ["Cosine", "Gaussian", "columns_of", "factors_of", "gaussian_rows"]

LOG_2 = math.log(2)

MODERATE = 40 * LOG_2
"""Norms from 2^-40 to 2^40 can be divided out of products of tokens; others must be before, or these overflow."""


class Cosine:
    """A factor cos(x_i, x_j), shape of x (H, N, D); a row of zeros is similar to nothing."""

    def __init__(self, tokens: Array) -> None:
        self.tokens = tokens

    @cached_property
    def log_norms(self) -> Array:
        """Log of each row's norm, shape (H, N); -inf for a row of zeros."""
        return log_norm(self.tokens)

    @cached_property
    def divisors(self) -> Array | None:
        """Log of what divides each row to make it a unit vector, 0 for zeros, shape (H, N); None out of range."""
        xp = namespace(self.tokens)
        logs = xp.where(self.log_norms > -xp.inf, self.log_norms, xp.zeros_like(self.log_norms))
        return logs if xp.max(xp.abs(logs)) < MODERATE else None

    @cached_property
    def units(self) -> Array:
        """The unit vectors of all tokens, shape (H, N, D): a second copy of them."""
        xp = namespace(self.tokens)
        dtype = accumulation_dtype(self.tokens)
        return xp.concat(
            [_units(as_dtype(self.tokens[:, tile, :], dtype)) for tile in tiles(self.tokens.shape[1])], axis=1
        )


class Gaussian:
    """A factor exp(-||k_i - k_j||^2 / (2 sqrt(D))): the cosine of phi(k_i) and phi(k_j) for the exponential kernel."""

    def __init__(self, tokens: Array, beside: Cosine | None = None) -> None:
        self.tokens, self.beside = tokens, beside
        self.scale = math.sqrt(1 / (LOG_2 * math.sqrt(tokens.shape[-1])))

    @cached_property
    def center(self) -> Array:
        """The mean key of each head, shape (H, 1, D)."""
        return key_center(self.tokens, accumulation_dtype(self.tokens))

    @cached_property
    def rows(self) -> Array:
        """Keys moved by their mean and scaled, with two coordinates more, shape (H, N, D + 2).

        Their product with `columns_of` other rows is the exponent, to the base 2, of the factor over the norms of the
        cosine `beside` it, ``x_i.y_j - |x_i|^2 / 2 - |y_j|^2 / 2 - log2 |v_i| - log2 |v_j|``. One matrix product then
        does what would take a pass over all pairs for each term.
        """
        divisors = None if self.beside is None else self.beside.divisors
        return gaussian_rows(self.tokens, self.center, divisors, scale=self.scale)

    @cached_property
    def is_rough(self) -> bool:
        """Whether rounding moves an exponent so far that a similarity may pass 1 by much, and has to be clipped."""
        xp = namespace(self.tokens)
        return bool(xp.max(xp.abs(self.rows[..., -2])) * float(xp.finfo(self.rows.dtype).eps) > 2.0**-6)


@overridable
def gaussian_rows(tokens: Array, center: Array, divisors: Array | None, *, scale: float) -> Array:
    """Return `Gaussian.rows` of tokens (H, N, D) with center (H, 1, D) and logs of divisors (H, N)."""
    xp = namespace(tokens)
    parts = []
    for tile in tiles(tokens.shape[1]):
        moved = as_dtype(tokens[:, tile, :], center.dtype) - center
        moved *= scale
        offset = -0.5 * xp.vecdot(moved, moved)
        if divisors is not None:
            offset -= divisors[:, tile] / LOG_2
        parts.append(xp.concat([moved, offset[..., None], xp.ones_like(offset)[..., None]], axis=-1))
    return joined(parts, axis=1)


def columns_of(rows: Array) -> Array:
    """Return some `Gaussian.rows` as the other side of a product: their last two coordinates change places."""
    return namespace(rows).concat([rows[..., :-2], rows[..., -1:], rows[..., -2:-1]], axis=-1)


def factors_of(keys: Array, values: Array, hidden: Array, *, metric: str, kernel: str) -> tuple[Cosine | Gaussian, ...]:
    """Return the one or two factors of a metric of table 3; of two, the second is a cosine."""
    if metric == "value":
        return (Cosine(values),)
    if metric == "hidden":
        return (Cosine(hidden[None, :, :]),)
    if metric == "key":
        return (Cosine(keys),)
    other = None if metric == "kernel_key" else Cosine(values)
    in_feature_space = Gaussian(keys, other) if kernel == "exponential" else Cosine(keys)
    return (in_feature_space,) if other is None else (in_feature_space, other)


def _units(rows: Array) -> Array:
    xp = namespace(rows)
    largest = xp.max(xp.abs(rows), axis=-1, keepdims=True)
    scaled = rows / xp.where(largest > 0, largest, xp.ones_like(largest))
    norms = xp.sqrt(xp.vecdot(scaled, scaled))[..., None]
    return scaled / xp.where(norms > 0, norms, xp.ones_like(norms))

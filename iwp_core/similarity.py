"""Similarities of updates as products of factors: cosines, and the Gaussian of the exponential kernel (table 3).

A factor holds its tokens as they came, and works out numbers of its own when first asked: a backend that compares
tokens by itself reads the kind of each factor and its tokens, and pays for nothing else.
"""

from functools import cached_property

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, namespace, take_tokens
from iwp_core.magnitude import key_center, log_norm

__all__ = ["Cosine", "Gaussian", "factors_of", "similarity_block"]


class Cosine:
    """A factor cos(x_i, x_j), shape of x (H, N, D); a row of zeros is similar to nothing."""

    def __init__(self, tokens: Array) -> None:
        self.tokens = tokens

    @cached_property
    def inverse_norms(self) -> Array:
        """One over each row's norm, 0 for a row of zeros, shape (H, N, 1)."""
        xp = namespace(self.tokens)
        log_norms = log_norm(self.tokens)
        nonzero = log_norms > -xp.inf
        inverse = xp.exp(-xp.where(nonzero, log_norms, xp.zeros_like(log_norms)))
        return xp.where(nonzero, inverse, xp.zeros_like(inverse))[..., None]

    def gather(self, indices: Array) -> Array:
        """Return the unit vectors of some tokens, shape (H, R, D)."""
        taken = as_dtype(take_tokens(self.tokens, indices), self.inverse_norms.dtype)
        return taken * take_tokens(self.inverse_norms, indices)


class Gaussian:
    """A factor exp(-||k_i - k_j||^2 / (2 sqrt(D))): the cosine of phi(k_i) and phi(k_j) for the exponential kernel."""

    def __init__(self, tokens: Array) -> None:
        self.tokens = tokens
        self.scale = tokens.shape[-1] ** -0.25

    @cached_property
    def center(self) -> Array:
        """The mean key of each head, shape (H, 1, D)."""
        return key_center(self.tokens, accumulation_dtype(self.tokens))

    def gather(self, indices: Array) -> Array:
        """Return some keys, moved and scaled so that the factor is exp(-||x_i - x_j||^2 / 2), shape (H, R, D)."""
        taken = as_dtype(take_tokens(self.tokens, indices), self.center.dtype)
        return (taken - self.center) * self.scale


def factors_of(keys: Array, values: Array, hidden: Array, *, metric: str, kernel: str) -> tuple[Cosine | Gaussian, ...]:
    """Return the one or two factors of a metric of table 3; of two, the second is a cosine."""
    if metric == "value":
        return (Cosine(values),)
    if metric == "hidden":
        return (Cosine(hidden[None, :, :]),)
    if metric == "key":
        return (Cosine(keys),)
    in_feature_space = Gaussian(keys) if kernel == "exponential" else Cosine(keys)
    return (in_feature_space,) if metric == "kernel_key" else (in_feature_space, Cosine(values))


def similarity_block(
    rows: Array, cols: Array, other_rows: Array | None = None, other_cols: Array | None = None, *, gaussian: bool
) -> Array:
    """Return the signed similarity of gathered tokens.

    Parameters
    ----------
    rows, cols : array, shape (H, R, D) and (H, C, D)
        What the first factor's ``gather`` returns.
    other_rows, other_cols : array, shape (H, R, E) and (H, C, E), optional
        What the second factor's ``gather`` returns; it is a cosine.
    gaussian : bool
        Whether the first factor is a `Gaussian`; else it is a `Cosine`.

    Returns
    -------
    array, shape (H, R, C)
    """
    xp = namespace(rows)
    similarity = xp.matmul(rows, xp.matrix_transpose(cols))
    if gaussian:
        half_squares = 0.5 * xp.sum(rows * rows, axis=-1, keepdims=True)
        other_half_squares = 0.5 * xp.matrix_transpose(xp.sum(cols * cols, axis=-1, keepdims=True))
        similarity = xp.exp(xp.clip(similarity - half_squares - other_half_squares, max=0.0))
    if other_rows is not None:
        similarity = similarity * xp.matmul(other_rows, xp.matrix_transpose(other_cols))
    return similarity

"""Information duplication: how much the updates of two tokens share (lemma 2, proposition 1, equation 12, table 3)."""

from iwp_core._arrays import Array, accumulation_dtype, namespace, take_tokens
from iwp_core._plugins import overridable
from iwp_core.identical import first_identical
from iwp_core.magnitude import key_center, log_norm

__all__ = ["SIMILARITIES", "Duplication", "duplication_block", "similarity_block"]

SIMILARITIES = ("dual", "value", "hidden", "key", "kernel_key")




class Duplication:
    """Pairwise information duplication of one sample's tokens, computed block by block when asked.

    Parameters
    ----------
    keys : array, shape (H, N, D)
    values : array, shape (H, N, Dv)
    hidden : array, shape (N, E), optional
        Read by the metric "hidden" only.
    metric : {"dual", "value", "hidden", "key", "kernel_key"}
    kernel : {"exponential", "linear"}

    Attributes
    ----------
    factors : tuple of Cosine and Gaussian
        One or two: a similarity is their product.
    identical : array of int, shape (N,), or None
        For each token the first token that no similarity can tell from it; None if all differ.

    Notes
    -----
    Holds O(H (N + D)) numbers beside the inputs.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.asarray([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
    >>> shared = Duplication(np.zeros((1, 3, 2)), values, metric="value", kernel="exponential")
    >>> shared(np.asarray([0]), np.asarray([1, 2]))
    array([[0., 1.]])
    """

    def __init__(
        self, keys: Array, values: Array, hidden: Array | None = None, *, metric: str, kernel: str
    ) -> None:
        self.factors = _factors(keys, values, hidden, metric=metric, kernel=kernel)
        self.identical = first_identical(*(factor.tokens for factor in self.factors))

    def __call__(self, rows: Array, cols: Array) -> Array:
        """Return the duplication of the tokens `rows` with the tokens `cols`.

        Parameters
        ----------
        rows : array of int, shape (R,)
        cols : array of int, shape (C,)

        Returns
        -------
        array, shape (R, C)
            Mean over heads of the squared similarity, in [0, 1].
        """
        return duplication_block(*self._gather(rows, cols), gaussian=isinstance(self.factors[0], Gaussian))

    def signed(self, rows: Array, cols: Array) -> Array:
        """Return the signed similarity of each head, shape (H, R, C), in [-1, 1]."""
        return similarity_block(*self._gather(rows, cols), gaussian=isinstance(self.factors[0], Gaussian))

    def _gather(self, rows: Array, cols: Array) -> list[Array]:
        return [factor.gather(tokens) for factor in self.factors for tokens in (rows, cols)]


class Cosine:
    """A factor cos(x_i, x_j), shape of x (H, N, D); a row of zeros is similar to nothing."""

    def __init__(self, tokens: Array) -> None:
        xp = namespace(tokens)
        log_norms = log_norm(tokens)
        nonzero = log_norms > -xp.inf
        inverse = xp.exp(-xp.where(nonzero, log_norms, xp.zeros_like(log_norms)))
        self.tokens = tokens
        self.inverse_norms = xp.where(nonzero, inverse, xp.zeros_like(inverse))[..., None]

    def gather(self, indices: Array) -> Array:
        """Return the unit vectors of some tokens, shape (H, R, D)."""
        xp = namespace(self.tokens)
        taken = xp.astype(take_tokens(self.tokens, indices), self.inverse_norms.dtype)
        return taken * take_tokens(self.inverse_norms, indices)


class Gaussian:
    """A factor exp(-||k_i - k_j||^2 / (2 sqrt(D))): the cosine of phi(k_i) and phi(k_j) for the exponential kernel."""

    def __init__(self, tokens: Array) -> None:
        self.tokens = tokens
        self.center = key_center(tokens, accumulation_dtype(tokens))
        self.scale = tokens.shape[-1] ** -0.25

    def gather(self, indices: Array) -> Array:
        """Return some keys, moved and scaled so that the factor is exp(-||x_i - x_j||^2 / 2), shape (H, R, D)."""
        xp = namespace(self.tokens)
        taken = xp.astype(take_tokens(self.tokens, indices), self.center.dtype)
        return (taken - self.center) * self.scale


def _factors(
    keys: Array, values: Array, hidden: Array, *, metric: str, kernel: str
) -> tuple[Cosine | Gaussian, ...]:
    """Return the factors of a metric of table 3."""
    if metric == "value":
        return (Cosine(values),)
    if metric == "hidden":
        return (Cosine(hidden[None, :, :]),)
    if metric == "key":
        return (Cosine(keys),)
    in_feature_space = Gaussian(keys) if kernel == "exponential" else Cosine(keys)
    return (in_feature_space,) if metric == "kernel_key" else (in_feature_space, Cosine(values))


@overridable
def duplication_block(
    rows: Array, cols: Array, other_rows: Array | None = None, other_cols: Array | None = None, *, gaussian: bool
) -> Array:
    """Return the mean over heads of the squared similarity, shape (R, C); parameters as `similarity_block`."""
    xp = namespace(rows)
    similarity = similarity_block(rows, cols, other_rows, other_cols, gaussian=gaussian)
    return xp.clip(xp.mean(similarity * similarity, axis=0), 0.0, 1.0)


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

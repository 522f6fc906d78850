"""The implicit weight W_S of a set of tokens: norms of its updates, its change by pruning, its spectrum.

Computed from kernel values, never from feature vectors (lemmas 1 and 3), in tiles, so that memory stays O(N).
"""

import math
from collections.abc import Callable, Iterator

from iwp_core._arrays import (
    Array,
    accumulation_dtype,
    arange_indices,
    as_dtype,
    device,
    locate,
    namespace,
    safe_log,
    tiles,
)
from iwp_core._plugins import backend_context
from iwp_core._validate import KERNELS, check_flag, check_name
from iwp_core.comparison import similarity_block
from iwp_core.norms import log_feature_norm, log_norm
from iwp_core.samples import Sample, check_tokens, expand_indices
from iwp_core.similarity import Gaussian, columns_of

__all__ = ["deletion_error", "dual_spectrum", "log_update_norm"]

BLOCK = 1024
"""Tokens a side of the kernel blocks that are summed."""


def log_update_norm(keys: Array, values: Array, /, *, kernel: str = "exponential") -> Array:
    """Return the logarithm of the Hilbert-Schmidt norm of each token's update; the norm itself may overflow.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
    values : array, shape (..., H, N, Dv)
    kernel : {"exponential", "linear"}

    Returns
    -------
    array, shape (..., H, N)
        log(||phi(k_i)|| ||v_i||); -inf where an update is zero. Without a head axis if `keys` has none.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of no real floating dtype.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, or `kernel` is unknown.

    References
    ----------
    arXiv 2604.00757, lemma 1.

    Examples
    --------
    >>> import numpy as np
    >>> log_update_norm(np.asarray([[2.0, 0.0]]), np.asarray([[0.0, 1.0]])) * np.sqrt(2)
    array([2.])
    """
    check_name("kernel", kernel, KERNELS)
    samples = check_tokens(keys, values)
    with backend_context(keys):
        norms = [log_feature_norm(sample.keys, kernel=kernel) + log_norm(sample.values) for sample in samples]
        return samples.join(norms, per_head=True)


def deletion_error(keys: Array, values: Array, /, kept: Array, *, kernel: str = "exponential") -> Array:
    """Return the relative change of the implicit weight by pruning, ||W_N - W_S|| / ||W_N||.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
    values : array, shape (..., H, N, Dv)
    kept : array of int, shape (M,), or (..., M) with the leading axes of `keys`
        Indices of the tokens S that are kept, distinct.
    kernel : {"exponential", "linear"}

    Returns
    -------
    array, shape (..., H)
        Ratio of Hilbert-Schmidt norms, at least 0; 0 if everything is kept or W_N is zero. It can exceed 1: updates
        may cancel each other. Without a head axis if `keys` has none.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of a dtype of the wrong kind.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, an index is out of range or there twice, or
        `kernel` is unknown.

    Notes
    -----
    Exact, computed from kernel values. Time O(N^2) for the exponential kernel, O(N) for the linear one; memory O(N).

    References
    ----------
    arXiv 2604.00757, lemmas 2 and 3.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.asarray([[3.0, 0.0], [0.0, 4.0]])
    >>> round(float(deletion_error(np.zeros((2, 1)), values, np.asarray([1]))), 6)
    0.6
    """
    check_name("kernel", kernel, KERNELS)
    samples = check_tokens(keys, values)
    kept = expand_indices("kept", kept, samples, distinct=True)
    with backend_context(keys):
        errors = [_deletion_error(sample, kept[row, :], kernel) for row, sample in enumerate(samples)]
        return samples.join(errors, per_head=True)


def dual_spectrum(
    keys: Array,
    values: Array,
    /,
    kept: Array | None = None,
    *,
    kernel: str = "exponential",
    return_log_scale: bool = False,
) -> Array | tuple[Array, Array]:
    """Return the singular values of the implicit weight W_S of the kept tokens.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
    values : array, shape (..., H, N, Dv)
    kept : array of int, shape (M,), or (..., M) with the leading axes of `keys`, optional
        Indices of the tokens S, distinct. Default: all tokens.
    kernel : {"exponential", "linear"}
    return_log_scale : bool, default False
        Whether the scale that was divided out of each head is returned too.

    Returns
    -------
    spectrum : array, shape (..., H, Dv)
        Descending. Without a head axis if `keys` has none.
    log_scale : array, shape (..., H)
        Only with `return_log_scale`. The singular values are ``spectrum * exp(log_scale)``. Where they fit the dtype,
        `log_scale` is 0; where they would overflow, the largest value of `spectrum` is 1.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of a dtype of the wrong kind; if
        `return_log_scale` is no bool.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, an index is out of range or there twice, or
        `kernel` is unknown.

    Notes
    -----
    For the exponential kernel, computed from the eigenvalues of V^T K V with the kernel matrix K; so values below the
    largest times the square root of the dtype's precision are noise. Time O(M^2), memory O(M). Needs the linear algebra
    extension of the Array API.

    References
    ----------
    arXiv 2604.00757, equation 7 and proposition 3 (the rank that magnitude alone can lose).

    Examples
    --------
    >>> import numpy as np
    >>> dual_spectrum(np.eye(2), np.asarray([[3.0, 0.0], [0.0, 4.0]]), kernel="linear")
    array([4., 3.])
    """
    check_name("kernel", kernel, KERNELS)
    check_flag("return_log_scale", return_log_scale)
    samples = check_tokens(keys, values)
    everyone = arange_indices(samples.count, keys)
    kept = expand_indices("kept", everyone if kept is None else kept, samples, distinct=True)
    with backend_context(keys):
        pairs = [_spectrum(sample, kept[row, :], kernel) for row, sample in enumerate(samples)]
        spectrum, log_scale = (samples.join(part, per_head=True) for part in zip(*pairs, strict=True))
    return (spectrum, log_scale) if return_log_scale else spectrum


def _deletion_error(sample: Sample, kept: Array, kernel: str) -> Array:
    """Return the deletion error of each head of one sample, shape (H,)."""
    xp = namespace(sample.keys)
    weight = _weight_of(sample, kernel)
    everyone = arange_indices(sample.keys.shape[-2], sample.keys)
    is_kept, _ = locate(as_dtype(xp.sort(kept), everyone.dtype), everyone)
    whole = weight.log_norm(everyone)
    lost = weight.log_norm(xp.nonzero(~is_kept)[0])
    nonzero = whole > -xp.inf
    return xp.where(nonzero, xp.exp(lost - xp.where(nonzero, whole, xp.zeros_like(whole))), xp.zeros_like(whole))


def _spectrum(sample: Sample, kept: Array, kernel: str) -> tuple[Array, Array]:
    """Return the singular values and the log of the scale taken out of them, shapes (H, Dv) and (H,)."""
    xp = namespace(sample.keys)
    singular, log_scale = _weight_of(sample, kernel).singular_values(kept)
    largest = singular[:, :1]
    log_largest = safe_log(largest) + log_scale[:, None]
    fits = log_largest < math.log(float(xp.finfo(singular.dtype).max))
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))
    true_scale = xp.exp(xp.where(fits, log_scale[:, None], xp.zeros_like(log_largest)))
    spectrum = xp.where(fits, singular * true_scale, singular / unit)
    return spectrum, xp.where(fits, xp.zeros_like(log_largest), log_largest)[:, 0]


def _weight_of(sample: Sample, kernel: str) -> "_ExponentialWeight | _LinearWeight":
    return (_ExponentialWeight if kernel == "exponential" else _LinearWeight)(sample.keys, sample.values)


class _LinearWeight:
    """W_S = sum of k_i (x) v_i, small enough to be formed."""

    def __init__(self, keys: Array, values: Array) -> None:
        self.keys, self.values = keys, values
        self.dtype = accumulation_dtype(keys, values)

    def _matrix(self, tokens: Array) -> Array:
        xp, shape = namespace(self.keys), (self.keys.shape[0], self.keys.shape[-1], self.values.shape[-1])
        matrix = xp.zeros(shape, dtype=self.dtype, device=device(self.keys))
        for tile in tiles(tokens.shape[0]):
            keys, values = (as_dtype(xp.take(x, tokens[tile], axis=1), self.dtype) for x in (self.keys, self.values))
            matrix = matrix + xp.matmul(xp.matrix_transpose(keys), values)
        return matrix

    def log_norm(self, tokens: Array) -> Array:
        """Return log ||W_S|| of each head, shape (H,)."""
        matrix = self._matrix(tokens)
        return log_norm(namespace(matrix).reshape(matrix, (matrix.shape[0], 1, -1)))[:, 0]

    def singular_values(self, tokens: Array) -> tuple[Array, Array]:
        """Return the singular values (H, Dv), zeros where D < Dv, and the log of a scale that is always 1."""
        matrix = self._matrix(tokens)
        xp = namespace(matrix)
        singular = xp.linalg.svdvals(matrix)
        padding = xp.zeros_like(matrix[:, 0, : matrix.shape[-1] - singular.shape[-1]])
        return xp.concat([singular, padding], axis=-1), xp.zeros_like(singular[:, 0])


class _ExponentialWeight:
    """W_S = sum of phi(k_i) (x) v_i through kernel values.

    kappa(k_i, k_j) = ||phi(k_i)|| ||phi(k_j)|| G_ij with the Gaussian factor G, so W_S^T W_S = U^T G U for values
    U = ||phi(k_i)|| v_i, from which one common factor exp(m) is taken, since feature norms overflow.
    """

    def __init__(self, keys: Array, values: Array) -> None:
        self.values, self.dtype = values, accumulation_dtype(keys, values)
        self.gaussian = Gaussian(keys)
        self.log_norms = log_feature_norm(keys, kernel="exponential")

    def _scaled(self, tokens: Array) -> tuple[Callable[[Array], Array], Array]:
        """Return the function that gathers rows of U exp(-m), and m, shape (H, 1)."""
        xp = namespace(self.values)
        log_scale = xp.max(xp.take(self.log_norms, tokens, axis=-1), axis=-1, keepdims=True)

        def gather(some: Array) -> Array:
            factors = xp.exp(xp.take(self.log_norms, some, axis=-1) - log_scale)
            return as_dtype(xp.take(self.values, some, axis=1), self.dtype) * as_dtype(factors, self.dtype)[..., None]

        return gather, log_scale

    def _products(self, tokens: Array) -> tuple[Iterator[tuple[Array, Array]], Array]:
        """Return pairs of blocks U_R and (G U)_R of rows R that cover the tokens, and m."""
        xp, (gather, log_scale) = namespace(self.values), self._scaled(tokens)

        def blocks() -> Iterator[tuple[Array, Array]]:
            clip = self.gaussian.is_rough
            for rows in tiles(tokens.shape[0], BLOCK):
                left = xp.take(self.gaussian.rows, tokens[rows], axis=1)
                product: Array = 0
                for cols in tiles(tokens.shape[0], BLOCK):
                    right = columns_of(xp.take(self.gaussian.rows, tokens[cols], axis=1))
                    factors = xp.clip(similarity_block(left, right, gaussian=True, clip=clip), max=1.0)
                    product = product + xp.matmul(factors, gather(tokens[cols]))
                yield gather(tokens[rows]), product

        return blocks(), log_scale

    def log_norm(self, tokens: Array) -> Array:
        """Return log ||W_S|| of each head, shape (H,)."""
        xp = namespace(self.values)
        if tokens.shape[0] == 0:
            return xp.full_like(self.log_norms[:, 0], -xp.inf)
        blocks, log_scale = self._products(tokens)
        square = sum(xp.sum(left * product, axis=(-2, -1)) for left, product in blocks)
        return log_scale[:, 0] + 0.5 * safe_log(xp.clip(square, min=0.0))

    def singular_values(self, tokens: Array) -> tuple[Array, Array]:
        """Return the singular values (H, Dv) of W_S exp(-m), descending, and m, shape (H,)."""
        xp = namespace(self.values)
        if tokens.shape[0] == 0:
            nothing = xp.zeros_like(self.values[:, 0, :], dtype=self.dtype)
            return nothing, nothing[:, 0]
        blocks, log_scale = self._products(tokens)
        gram = sum(xp.matmul(xp.matrix_transpose(left), product) for left, product in blocks)
        gram = 0.5 * (gram + xp.matrix_transpose(gram))
        singular = xp.sqrt(xp.clip(xp.linalg.eigvalsh(gram), min=0.0))
        return xp.flip(singular, axis=-1), log_scale[:, 0]

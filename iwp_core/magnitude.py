"""Information magnitude: how much one token's update carries (lemma 1, equation 10, tables 1 and 2).

Everything is computed as logarithms. Query-key products of real models reach the hundreds, so kernel values leave
the range of float32 and norms of feature vectors that of float64, while their logarithms are ordinary numbers.
"""

import math
from collections.abc import Iterator

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, namespace, safe_log, take, tiles
from iwp_core._plugins import backend_context, overridable
from iwp_core._validate import KERNELS, check_heads, check_name
from iwp_core.comparison import Duplication
from iwp_core.identical import first_identical
from iwp_core.norms import key_center, log_feature_norm, log_norm
from iwp_core.pooling import AVERAGING, QUERY_MAGNITUDES, check_pooling, log_min_max, log_total, pooled
from iwp_core.samples import Sample, check_tokens
from iwp_core.similarity import Cosine, Gaussian

__all__ = [
    "MAGNITUDES",
    "check_query_given",
    "information_magnitude",
    "log_magnitude",
    "log_sample_magnitude",
]

BLOCK = 1 << 22
"""Scores held at a time, several times over: 16 MB of float32."""

MAGNITUDES = (*QUERY_MAGNITUDES, "gradient_norm", "key_norm", "raw_key_norm", "value_norm")


def information_magnitude(
    keys: Array,
    values: Array,
    queries: Array | None,
    /,
    *,
    metric: str = "dual",
    kernel: str = "exponential",
    heads: str | float = "mean",
    context: Array | None = None,
) -> Array:
    """Return how much each token's update carries, scaled to [0, 1] over the tokens of a sample.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
        Keys to score, by default of the library without rotary embedding.
    values : array, shape (..., H, N, Dv)
    queries : array, shape (..., Hq, D) or (..., Hq, T, D), or None
        As in `select_tokens`; None is allowed where `metric` reads no query.
    metric : {"dual", "kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm"}
        Score of table 1; its head mean is scaled by its minimum and maximum.
    kernel : {"exponential", "linear"}
    heads : {"mean", "softmax_mean", "softmax_mean_per_query", "max"} or float
        As in `select_tokens`.
    context : array, shape (..., Hq, T), optional
        As in `select_tokens`.

    Returns
    -------
    array, shape (..., N)
        In [0, 1]; all ones if all scores are equal. float64 for float64 inputs, else float32.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of no real floating dtype; if `queries` is
        missing, or `heads` is neither a name nor a number.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, a name is unknown, or `heads` does not go with
        `queries` or `context`.

    Notes
    -----
    Computed in logarithms; a score more than about 100 below the largest in its logarithm is 0 in float32.

    References
    ----------
    arXiv 2604.00757, equation 10, tables 1 and 2; equation 22 for the linear kernel, whose product may be negative:
    its absolute value counts.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.asarray([[3.0, 4.0], [0.0, 1.0], [0.0, 3.0]])
    >>> information_magnitude(np.zeros((3, 2)), values, None, metric="value_norm")
    array([1. , 0. , 0.5])
    """
    check_name("metric", metric, MAGNITUDES)
    check_name("kernel", kernel, KERNELS)
    check_heads(heads)
    check_query_given(queries, metric)
    samples = check_tokens(keys, values, queries, context=context)
    check_pooling(keys, queries, context, metric=metric, heads=heads)
    xp = samples.xp
    with backend_context(keys):
        scores = [log_sample_magnitude(sample, metric=metric, kernel=kernel, heads=heads) for sample in samples]
        return samples.join([xp.exp(score) for score in scores])


def check_query_given(queries: Array | None, metric: str) -> None:
    """Check that the query is there if the metric reads one.

    Raises
    ------
    TypeError
        If it is missing.
    """
    if queries is None and metric in QUERY_MAGNITUDES:
        msg = f"`queries` is None, expected an array (..., Hq, D): the magnitude {metric!r} reads it"
        raise TypeError(msg)


def log_sample_magnitude(
    sample: Sample, *, metric: str, kernel: str, heads: str | float, shared: Duplication | None = None
) -> Array:
    """Return the `log_magnitude` of a sample, its T queries averaged, or each of them as one more head of its group."""
    queries, context = sample.queries, sample.context
    if queries is not None:
        xp = namespace(queries)
        queries = as_dtype(queries, accumulation_dtype(queries))
        if heads not in AVERAGING:
            queries = xp.reshape(queries, (-1, queries.shape[-1]))
            context = None if context is None else xp.reshape(as_dtype(context, queries.dtype), (-1,))
        else:
            queries = queries[:, 0, :] if queries.shape[-2] == 1 else xp.mean(queries, axis=-2)
    pooling = "softmax_mean" if heads == "softmax_mean_per_query" else heads
    return log_magnitude(
        sample.magnitude_keys,
        sample.values,
        queries,
        metric=metric,
        kernel=kernel,
        heads=pooling,
        context=context,
        shared=shared,
    )


@overridable
def log_magnitude(
    keys: Array,
    values: Array,
    queries: Array | None,
    *,
    metric: str,
    kernel: str,
    heads: str | float,
    context: Array | None = None,
    shared: Duplication | None = None,
) -> Array:
    """Return the log of one sample's information magnitude.

    Parameters
    ----------
    keys : array, shape (H, N, D)
    values : array, shape (H, N, Dv)
    queries : array, shape (Hq, D), or None
        One query a head, as many of each key/value head; None for metrics that read none.
    metric, kernel : str
        As in `select_tokens`.
    heads : {"mean", "softmax_mean", "max"} or float
        Likewise.
    context : array, shape (Hq,), optional
        Log-sum-exp of the scaled logits of each query over what it sees outside of the candidates.
    shared : Duplication, optional
        The sample's duplication: what it works out of the same arrays is read from there, not worked out again.

    Returns
    -------
    array, shape (N,)
        From -inf (the smallest) to 0 (the largest), in the accumulation dtype.

    Notes
    -----
    Identical tokens get identical numbers. Memory O(N), and no more than `BLOCK` scores at a time.
    """
    xp = namespace(keys)
    tokens = _Tokens(keys, values, () if shared is None else shared.factors)
    pool: Array = None
    for block, outside in _blocks(queries, context, keys, metric):
        scores = tokens.log_scores(block, metric=metric, kernel=kernel)
        if heads == "softmax_mean":
            scores = scores - log_total(scores)
        elif heads != "mean" and block is not None:
            logits = scores if metric == "kernel" else tokens.log_scores(block, metric="kernel", kernel=kernel)
            total = log_total(logits)
            scores = scores - (total if outside is None else xp.logaddexp(total, outside[:, None]))
        latest = pooled(scores, heads)
        pool = latest if pool is None else pooled(xp.concat([pool, latest], axis=0), heads)
    scores = pool[0, :]
    twins = _identical(_read(keys, values, metric), shared)
    if twins is not None:
        scores = take(scores, twins)
    return log_min_max(scores)


def _blocks(
    queries: Array | None, context: Array | None, keys: Array, metric: str
) -> Iterator[tuple[Array | None, Array | None]]:
    """Cut queries (Hq, D) into blocks that hold as many of every key/value head, in the order of heads."""
    if queries is None or metric not in QUERY_MAGNITUDES:
        yield None, None
        return
    xp = namespace(queries)
    count, total, width = keys.shape
    grouped = xp.reshape(queries, (count, -1, width))
    outside = None if context is None else xp.reshape(context, (count, -1))
    for tile in tiles(grouped.shape[1], max(1, BLOCK // (count * total))):
        some = None if outside is None else xp.reshape(outside[:, tile], (-1,))
        yield xp.reshape(grouped[:, tile, :], (-1, width)), some


def _read(keys: Array, values: Array, metric: str) -> tuple[Array, ...]:
    """Return the arrays that a metric reads a token's score from."""
    if metric == "value_norm":
        return (values,)
    if metric in ("dual", "gradient_norm"):
        return keys, values
    return (keys,)


def _identical(arrays: tuple[Array, ...], shared: Duplication | None) -> Array | None:
    """Return `first_identical` of the arrays, from the duplication if it reads the same ones."""
    if shared is not None and len(shared.factors) == len(arrays):
        pairs = zip(shared.factors, arrays, strict=True)
        if all(factor.tokens is array for factor, array in pairs):
            return shared.identical
    return first_identical(*arrays)


class _Tokens:
    """Keys and values to score, with the factors of a duplication that may be of the same arrays."""

    def __init__(self, keys: Array, values: Array, factors: tuple[Cosine | Gaussian, ...]) -> None:
        self.keys, self.values = keys, values
        gaussians = [one for one in factors if isinstance(one, Gaussian) and one.tokens is keys]
        cosines = [one for one in factors if isinstance(one, Cosine) and one.tokens is values]
        self.gaussian = gaussians[0] if gaussians else None
        self.cosine = cosines[0] if cosines else Cosine(values)

    def log_scores(self, queries: Array | None, *, metric: str, kernel: str) -> Array:
        """Return the log scores of table 1 before heads are pooled: (Hq, N) if a query is read, else (H, N)."""
        if metric == "value_norm":
            return self.cosine.log_norms
        if metric == "raw_key_norm":
            return log_norm(self.keys)
        if metric == "key_norm":
            return log_feature_norm(self.keys, kernel=kernel)
        if metric == "gradient_norm":
            return log_feature_norm(self.keys, kernel=kernel) + self.cosine.log_norms
        xp = namespace(self.keys)
        log_kernel = self._products(queries, 1 / math.sqrt(self.keys.shape[-1]) if kernel == "exponential" else 1.0)
        if kernel == "linear":
            log_kernel = safe_log(xp.abs(log_kernel))
        if metric == "dual":
            log_kernel += self.cosine.log_norms[:, None, :]
        return xp.reshape(log_kernel, (-1, self.keys.shape[1]))

    def _products(self, queries: Array, scale: float) -> Array:
        """Return q_h.k_i times `scale`, shape (H, Hq/H, N); query head h reads key/value head h // (Hq/H)."""
        xp = namespace(queries)
        heads, _, width = self.keys.shape
        dtype = accumulation_dtype(self.keys, queries)
        grouped = xp.reshape(as_dtype(queries, dtype), (heads, -1, width)) * scale
        center = key_center(self.keys, dtype) if self.gaussian is None else self.gaussian.center
        at_center = xp.matmul(grouped, xp.matrix_transpose(center))
        if self.gaussian is not None:  # its rows end with an offset, which does not count here, and 1
            extended = xp.concat([grouped / self.gaussian.scale, xp.zeros_like(at_center), at_center], axis=-1)
            return xp.matmul(extended, xp.matrix_transpose(self.gaussian.rows))
        parts = [
            xp.matmul(grouped, xp.matrix_transpose(as_dtype(self.keys[:, tile, :], dtype) - center))
            for tile in tiles(self.keys.shape[1])
        ]
        return xp.concat(parts, axis=-1) + at_center

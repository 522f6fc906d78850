"""Information magnitude: how much one token's update carries (lemma 1, equation 10, tables 1 and 2).

Everything is computed as logarithms. Query-key products of real models reach the hundreds, so kernel values leave
the range of float32 and norms of feature vectors that of float64, while their logarithms are ordinary numbers.
"""

import math
from collections.abc import Iterator

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, namespace, safe_log, tiles
from iwp_core._plugins import backend_context, overridable
from iwp_core._validate import HEADS, KERNELS, Sample, check_name, check_tokens
from iwp_core.identical import first_identical

__all__ = [
    "MAGNITUDES",
    "check_query_given",
    "information_magnitude",
    "key_center",
    "log_feature_norm",
    "log_magnitude",
    "log_norm",
    "log_sample_magnitude",
]

BLOCK = 1 << 22
"""Scores held at a time: 16 MB of float32."""

QUERY_MAGNITUDES = ("dual", "kernel")
"""Metrics that read a query."""

MAGNITUDES = (*QUERY_MAGNITUDES, "gradient_norm", "key_norm", "raw_key_norm", "value_norm")


def information_magnitude(
    queries: Array | None,
    keys: Array,
    values: Array,
    *,
    metric: str = "dual",
    kernel: str = "exponential",
    heads: str = "mean",
) -> Array:
    """Return how much each token's update carries, scaled to [0, 1] over the tokens of a sample.

    Parameters
    ----------
    queries : array, shape (..., Hq, D) or (..., Hq, T, D), or None
        As in `select_tokens`; None is allowed where `metric` reads no query.
    keys : array, shape (..., H, N, D)
        Keys to score, by default of the library without rotary embedding.
    values : array, shape (..., H, N, Dv)
    metric : {"dual", "kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm"}
        Score of table 1; its head mean is scaled by its minimum and maximum.
    kernel : {"exponential", "linear"}
    heads : {"mean", "softmax_mean", "softmax_mean_per_query"}
        As in `select_tokens`.

    Returns
    -------
    array, shape (..., N)
        In [0, 1]; all ones if all scores are equal. float64 for float64 inputs, else float32.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of no real floating dtype.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, or a name is unknown.

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
    >>> information_magnitude(None, np.zeros((3, 2)), values, metric="value_norm")
    array([1. , 0. , 0.5])
    """
    check_name("metric", metric, MAGNITUDES)
    check_name("kernel", kernel, KERNELS)
    check_name("heads", heads, HEADS)
    check_query_given(queries, metric)
    samples = check_tokens(keys, values, queries)
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


def log_sample_magnitude(sample: Sample, *, metric: str, kernel: str, heads: str) -> Array:
    """Return the `log_magnitude` of a sample, its T queries averaged, or each of them as one more head of its group."""
    queries, pooling = sample.queries, "mean" if heads == "mean" else "softmax_mean"
    if queries is not None:
        xp = namespace(queries)
        queries = as_dtype(queries, accumulation_dtype(queries))
        if heads == "softmax_mean_per_query":
            queries = xp.reshape(queries, (-1, queries.shape[-1]))
        else:
            queries = xp.mean(queries, axis=-2)
    return log_magnitude(sample.magnitude_keys, sample.values, queries, metric=metric, kernel=kernel, heads=pooling)


@overridable
def log_magnitude(keys: Array, values: Array, queries: Array | None, *, metric: str, kernel: str, heads: str) -> Array:
    """Return the log of one sample's information magnitude.

    Parameters
    ----------
    keys : array, shape (H, N, D)
    values : array, shape (H, N, Dv)
    queries : array, shape (Hq, D), or None
        One query a head, as many of each key/value head; None for metrics that read none.
    metric, kernel : str
        As in `select_tokens`.
    heads : {"mean", "softmax_mean"}
        Likewise.

    Returns
    -------
    array, shape (N,)
        From -inf (the smallest) to 0 (the largest), in the accumulation dtype.

    Notes
    -----
    Identical tokens get identical numbers. Memory O(Hq N), but for no more than `BLOCK` scores at a time.
    """
    xp = namespace(keys)
    parts = []
    for block in _blocks(queries, keys, metric):
        scores = _log_scores(keys, values, block, metric=metric, kernel=kernel)
        if heads == "softmax_mean":
            total = _log_sum(scores, axis=1)
            scores = scores - xp.where(total > -xp.inf, total, xp.zeros_like(total))  # a head of zeros stays one
        parts.append(_log_sum(scores, axis=0))
    pooled = _log_sum(xp.concat(parts, axis=0), axis=0)[0, :]
    twins = first_identical(*_read(keys, values, metric))
    if twins is not None:
        pooled = xp.take(pooled, twins)
    return _log_min_max(pooled)


def _blocks(queries: Array | None, keys: Array, metric: str) -> Iterator[Array | None]:
    """Cut queries (Hq, D) into blocks that hold as many of every key/value head, in the order of heads."""
    if queries is None or metric not in QUERY_MAGNITUDES:
        yield None
        return
    xp = namespace(queries)
    count, total, width = keys.shape
    grouped = xp.reshape(queries, (count, -1, width))
    for tile in tiles(grouped.shape[1], max(1, BLOCK // (count * total))):
        yield xp.reshape(grouped[:, tile, :], (-1, width))


def _read(keys: Array, values: Array, metric: str) -> tuple[Array, ...]:
    """Return the arrays that a metric reads a token's score from."""
    if metric == "value_norm":
        return (values,)
    if metric in ("dual", "gradient_norm"):
        return keys, values
    return (keys,)


def _log_scores(keys: Array, values: Array, queries: Array | None, *, metric: str, kernel: str) -> Array:
    """Return the log scores of table 1 before heads are pooled: (Hq, N) if a query is read, else (H, N)."""
    xp = namespace(keys)
    if metric == "value_norm":
        return log_norm(values)
    if metric == "raw_key_norm":
        return log_norm(keys)
    if metric == "key_norm":
        return log_feature_norm(keys, kernel=kernel)
    if metric == "gradient_norm":
        return log_feature_norm(keys, kernel=kernel) + log_norm(values)
    log_kernel = _log_query_kernel(queries, keys, kernel=kernel)
    if metric == "kernel":
        return log_kernel
    group = log_kernel.shape[0] // keys.shape[0]
    return log_kernel + xp.repeat(log_norm(values), group, axis=0)


def _log_query_kernel(queries: Array, keys: Array, *, kernel: str) -> Array:
    """Return log|kappa(q_h, k_i)|, shape (Hq, N); query head h reads key/value head h // (Hq/H)."""
    xp = namespace(keys)
    count, _, width = keys.shape
    dtype = accumulation_dtype(keys, queries)
    grouped = xp.reshape(as_dtype(queries, dtype), (count, queries.shape[0] // count, width))
    center = key_center(keys, dtype)
    at_center = xp.matmul(grouped, xp.matrix_transpose(center))
    parts = [
        xp.matmul(grouped, xp.matrix_transpose(as_dtype(keys[:, tile, :], dtype) - center)) + at_center
        for tile in tiles(keys.shape[1])
    ]
    products = xp.reshape(xp.concat(parts, axis=-1), (queries.shape[0], keys.shape[1]))
    return products / math.sqrt(width) if kernel == "exponential" else safe_log(xp.abs(products))


def key_center(keys: Array, dtype: object) -> Array:
    """Return the mean key of each head, shape (H, 1, D).

    Subtracting it moves no distance between keys, and adds one number per head to all products with a query; it
    spares the products the large common part that biased key projections give (their rounding would drown the rest).
    """
    xp = namespace(keys)
    total = sum(xp.sum(as_dtype(keys[:, tile, :], dtype), axis=-2, keepdims=True) for tile in tiles(keys.shape[-2]))
    return total / keys.shape[-2]


def log_norm(rows: Array) -> Array:
    """Return the log of the Euclidean norm of the rows of (H, N, D), shape (H, N); -inf for a zero row."""
    xp = namespace(rows)
    dtype = accumulation_dtype(rows)
    parts = []
    for tile in tiles(rows.shape[-2]):
        part = as_dtype(rows[:, tile, :], dtype)
        largest = xp.max(xp.abs(part), axis=-1, keepdims=True)
        scaled = part / xp.where(largest > 0, largest, xp.ones_like(largest))  # squares neither overflow nor vanish
        parts.append(safe_log(largest[..., 0]) + 0.5 * safe_log(xp.sum(scaled * scaled, axis=-1)))
    return xp.concat(parts, axis=-1)


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
        parts.append(xp.sum(offset * (offset + 2 * center), axis=-1) + at_center)
    return xp.concat(parts, axis=-1) / (2 * math.sqrt(keys.shape[-1]))


def _log_sum(scores: Array, axis: int) -> Array:
    """Return the log of the sum of exp(scores) along an axis, which is kept with length 1."""
    xp = namespace(scores)
    largest = xp.max(scores, axis=axis, keepdims=True)
    shift = xp.where(largest > -xp.inf, largest, xp.zeros_like(largest))
    return shift + safe_log(xp.sum(xp.exp(scores - shift), axis=axis, keepdims=True))


def _log_min_max(scores: Array) -> Array:
    """Return the log of exp(scores) scaled to [0, 1]; zeros (that is, all ones) when all are equal."""
    xp = namespace(scores)
    lowest, highest = xp.min(scores), xp.max(scores)
    if lowest == highest:
        return xp.zeros_like(scores)
    finite = xp.where(scores > lowest, scores, highest)
    above_lowest = finite + xp.log(-xp.expm1(lowest - finite))
    span = highest + xp.log(-xp.expm1(lowest - highest))
    scaled = xp.where(above_lowest < span, above_lowest - span, xp.zeros_like(scores))
    return xp.where(scores > lowest, scaled, xp.full_like(scores, -xp.inf))

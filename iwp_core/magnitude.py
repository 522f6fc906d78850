"""Information magnitude: how much one token's update contributes (lemma 1, equation 10, tables 1 and 2).

Everything is computed as logarithms. Query-key products of real models reach the hundreds, so kernel values leave
the range of float32 and norms of feature vectors that of float64, while their logarithms are ordinary numbers.
"""

from collections.abc import Iterator

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, namespace, take, tiles
from iwp_core._plugins import backend_context, overridable
from iwp_core._validate import KERNELS, check_heads, check_name
from iwp_core.comparison import Duplication
from iwp_core.identical import first_identical
from iwp_core.pooling import (
    AVERAGING,
    QUERY_MAGNITUDES,
    check_pooling,
    log_min_max,
    log_total,
    of_single_queries,
    pooled,
)
from iwp_core.samples import Sample, check_tokens
from iwp_core.token_scores import TokenScores

__all__ = [
    "MAGNITUDES",
    "check_query_given",
    "information_magnitude",
    "log_magnitude",
    "log_sample_magnitude",
    "log_seen",
    "query_blocks",
    "single_queries",
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
    """Return the information magnitude of each token, scaled to [0, 1] over the tokens of a sample.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
        Keys; the integrations of this package give them without rotary embedding by default.
    values : array, shape (..., H, N, Dv)
    queries : array, shape (..., Hq, D) or (..., Hq, T, D), or None
        As in `select_tokens`; None is allowed if `metric` does not depend on a query.
    metric : {"dual", "kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm"}
        Score of table 1. Its mean over heads is scaled so that the minimum becomes 0 and the maximum 1.
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
    Computed in logarithms. A score whose logarithm is more than about 100 below the largest becomes 0 in float32.

    References
    ----------
    arXiv 2604.00757, equation 10, tables 1 and 2; equation 22 for the linear kernel, with the absolute value of the
    product of query and key, which can be negative.

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
    sample: Sample,
    *,
    metric: str,
    kernel: str,
    heads: str | float,
    shared: Duplication | None = None,
    scaled: bool = True,
) -> Array:
    """Return the `log_magnitude` of a sample: average the T queries, or treat each as a separate query head.

    With `scaled=False` the magnitudes are not min-max scaled, so that those of several layers can be pooled; they are
    then known up to a factor that all tokens share.
    """
    queries, context = sample.queries, None
    if queries is not None and heads not in AVERAGING:
        queries, context = single_queries(sample)
    elif queries is not None:
        queries = as_dtype(queries, accumulation_dtype(queries))
        queries = queries[:, 0, :] if queries.shape[-2] == 1 else namespace(queries).mean(queries, axis=-2)
    scores = log_magnitude if scaled else _log_scores
    return scores(
        sample.magnitude_keys,
        sample.values,
        queries,
        metric=metric,
        kernel=kernel,
        heads=of_single_queries(heads),
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
    scores = _log_scores(
        keys, values, queries, metric=metric, kernel=kernel, heads=heads, context=context, shared=shared
    )
    return log_min_max(scores)


def _log_scores(
    keys: Array,
    values: Array,
    queries: Array | None,
    *,
    metric: str,
    kernel: str,
    heads: str | float,
    context: Array | None,
    shared: Duplication | None,
) -> Array:
    """Return `log_magnitude` before it is scaled."""
    xp = namespace(keys)
    tokens = TokenScores(keys, values, () if shared is None else shared.factors)
    pool: Array = None
    for block, outside in query_blocks(queries, context, keys, metric):
        scores = tokens.log_scores(block, metric=metric, kernel=kernel)
        if heads == "softmax_mean":
            scores = scores - log_total(scores)
        elif heads != "mean" and block is not None:
            logits = scores if metric == "kernel" else tokens.log_scores(block, metric="kernel", kernel=kernel)
            scores = scores - log_seen(logits, outside)
        latest = pooled(scores, heads)
        pool = latest if pool is None else pooled(xp.concat([pool, latest], axis=0), heads)
    scores = pool[0, :]
    twins = _identical(_read(keys, values, metric), shared)
    return scores if twins is None else take(scores, twins)


def single_queries(sample: Sample) -> tuple[Array, Array | None]:
    """Return each of the T queries as one more head of its group, and its context."""
    xp, context = namespace(sample.queries), sample.context
    queries = as_dtype(sample.queries, accumulation_dtype(sample.queries))
    context = None if context is None else xp.reshape(as_dtype(context, queries.dtype), (-1,))
    return xp.reshape(queries, (-1, queries.shape[-1])), context


def log_seen(logits: Array, outside: Array | None) -> Array:
    """Return the log-sum-exp of all that each query sees, shape (Hq, 1): candidates, and what is outside of them."""
    total = log_total(logits)
    return total if outside is None else namespace(logits).logaddexp(total, outside[:, None])


def query_blocks(
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

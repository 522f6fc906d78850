"""How the log scores of heads and queries become one number a token, between those of the least and the best token."""

import math

from iwp_core._arrays import Array, namespace, safe_log

__all__ = [
    "AVERAGING",
    "QUERY_MAGNITUDES",
    "check_pooling",
    "log_min_max",
    "log_sum",
    "log_total",
    "of_single_queries",
    "pooled",
]

AVERAGING = ("mean", "softmax_mean")
"""Ways of pooling heads that average the T queries first."""

QUERY_MAGNITUDES = ("dual", "kernel")
"""Metrics that read a query."""


def check_pooling(
    keys: Array,
    queries: Array | None,
    context: Array | None,
    *,
    metric: str,
    heads: str | float,
    bounded: bool = False,
) -> None:
    """Check that there are single queries where each is to score, and that a given `context` is read.

    Raises
    ------
    ValueError
        If queries come averaged and `heads` asks each of them, or if `context` is of no use.
    """
    reads_queries = metric in QUERY_MAGNITUDES
    if heads not in AVERAGING and reads_queries and queries is not None and queries.ndim < keys.ndim:
        msg = (
            f"`queries` has shape {tuple(queries.shape)}, one query a head, expected (..., Hq, T, D): "
            f"with `heads` {heads!r} each of T queries scores by itself"
        )
        raise ValueError(msg)
    if context is not None and not bounded and (heads in (*AVERAGING, "softmax_mean_per_query") or not reads_queries):
        msg = (
            f"`context` is given with `heads` {heads!r} and the magnitude {metric!r}, expected None: it is read by the "
            f"`heads` 'max' or p and the magnitudes {', '.join(map(repr, QUERY_MAGNITUDES))}, and by a `Tolerance`"
        )
        raise ValueError(msg)


def of_single_queries(heads: str | float) -> str | float:
    """Return how rows are pooled once each of the T queries is one more head, or their average the only one."""
    return "softmax_mean" if heads == "softmax_mean_per_query" else heads


def log_total(scores: Array) -> Array:
    """Return the log-sum-exp of each row, kept as an axis of length 1; 0 for a row of zeros, which then stays one."""
    total = log_sum(scores, axis=1)
    return namespace(scores).where(total > -math.inf, total, namespace(scores).zeros_like(total))


def pooled(scores: Array, heads: str | float) -> Array:
    """Pool the rows of log scores, up to a factor that is the same for all tokens: (1, N)."""
    if heads == "max":
        return namespace(scores).max(scores, axis=0, keepdims=True)
    power = 1.0 if isinstance(heads, str) else float(heads)
    return log_sum(scores * power, axis=0) / power if power != 1.0 else log_sum(scores, axis=0)


def log_sum(scores: Array, axis: int) -> Array:
    """Return the log of the sum of exp(scores) along an axis, which is kept with length 1."""
    xp = namespace(scores)
    largest = xp.max(scores, axis=axis, keepdims=True)
    if xp.min(largest) > -xp.inf:  # each sum has a term of 1
        return largest + xp.log(xp.sum(xp.exp(scores - largest), axis=axis, keepdims=True))
    shift = xp.where(largest > -xp.inf, largest, 0.0)
    return shift + safe_log(xp.sum(xp.exp(scores - shift), axis=axis, keepdims=True))


def log_min_max(scores: Array) -> Array:
    """Return the log of exp(scores) scaled to [0, 1]; zeros (that is, all ones) when all are equal."""
    xp = namespace(scores)
    lowest, highest = xp.min(scores), xp.max(scores)
    if lowest == highest:
        return xp.zeros_like(scores)
    above = scores > lowest
    finite = xp.where(above, scores, highest)
    log_share = finite + xp.log(-xp.expm1(lowest - finite))
    return xp.where(above, log_share - xp.max(log_share), -xp.inf)

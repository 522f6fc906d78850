"""Scores of runs of tokens for HoloV, and how many tokens each run keeps."""

from iwp_core._arrays import Array, arange_indices, namespace, order_descending
from iwp_core.methods._precision import Precision

__all__ = ["run_quotas", "run_score"]

ATTENTION, VARIATION, LEAST = 1000.0, 0.09, 1e-6
"""Weights of a run's attention and of the variation of its similarities; what is added to every divisor."""


def run_score(rows: Array, attention: Array, precision: Precision) -> Array:
    """Return how attended and varied a run of tokens is.

    Parameters
    ----------
    rows : array of float, shape (n, E)
        Features of the run's tokens.
    attention : array of float, shape (n,)
        Attention that each of them receives.
    precision : Precision
        Dtypes of the arithmetic.

    Returns
    -------
    array of float, shape ()
        The mean of 1000 times the attention plus 0.09 times the variation. The variation of a token is the variance of
        its cosines to the other tokens, scaled to the mean of the attention. For a single token: its attention as it
        is, as in the official code.
    """
    xp = namespace(rows)
    count = rows.shape[0]
    if count == 1:
        return attention[0]
    units = precision.round(rows / precision.round(precision.norm(rows) + LEAST)[:, None])
    similarity = precision.round(units @ xp.matrix_transpose(units))
    places = arange_indices(count, rows)
    similarity = xp.where(places[:, None] == places[None, :], xp.zeros_like(similarity), similarity)
    mean = precision.round(precision.sum(similarity, axis=1) / (count - 1))
    deviation = precision.round(similarity - mean[:, None])
    variation = precision.round(precision.sum(precision.round(deviation * deviation), axis=1) / (count - 1))
    attention = precision.round(ATTENTION * attention)
    heights = [precision.mean(xp.abs(x), axis=0) for x in (attention, variation)]
    # Without any variation there is none to scale, and a half-precision quotient by LEAST would not be finite.
    height = xp.where(heights[1] > 0, heights[0], xp.zeros_like(heights[0]))
    scale = precision.round_in_range(height / precision.round(heights[1] + LEAST))
    weighed = precision.round(precision.round(VARIATION * variation) * scale)
    return precision.mean(precision.round(attention + weighed), axis=0)


def run_quotas(scores: Array, count: int, precision: Precision) -> list[int]:
    """Return how many of `count` tokens each run keeps: in proportion to its score, the rest by the largest scores."""
    xp = namespace(scores)
    shares = precision.round(scores / precision.round(xp.sum(scores) + LEAST))
    quotas = [int(quota) for quota in xp.floor(precision.round(shares * count))]
    order = [int(run) for run in order_descending(shares)]
    for place in range(count - sum(quotas)):
        quotas[order[place % len(order)]] += 1
    return quotas

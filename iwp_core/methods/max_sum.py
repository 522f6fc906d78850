"""Greedy max-sum dispersion: choose the token with the smallest summed cosine to the chosen tokens."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.methods._cosine import cosines
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import tokens_at
from iwp_core.methods._ties import tied

__all__ = ["greedy_max_sum"]


def greedy_max_sum(features: Array, count: int) -> Array:
    """Choose tokens with the largest sum of cosine distances to those chosen before, in the order of choice.

    Parameters
    ----------
    features : array, shape (N, E)
        Features of the tokens.
    count : int
        Number of tokens M, at most N.

    Returns
    -------
    array of int, shape (M,)
        The first is the token with the smallest mean cosine to all. Of equal sums, the lower index is taken.
    """
    xp = namespace(features)
    precision = Precision.of(features)
    similarity = cosines(precision.enter(features), precision)
    everything = arange_indices(features.shape[0], features)
    available = everything >= 0
    total = tied(precision.mean(similarity, axis=1), features[None, :, :])
    chosen = []
    for step in range(count):
        best = xp.argmin(xp.where(available, total, xp.full_like(total, xp.inf)))[None]
        chosen.append(best)
        available = available & (everything != best)
        row = tokens_at(similarity, best)[0, :]
        total = row if step == 0 else precision.round(total + row)
    return xp.concat(chosen)

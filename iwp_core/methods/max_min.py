"""Greedy max-min dispersion: choose the token that is farthest from its nearest chosen token."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.methods._cosine import cosines, largest_other
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import tokens_at

__all__ = ["greedy_max_min"]


def greedy_max_min(features: Array, count: int) -> Array:
    """Choose tokens that are far apart in cosine distance 1 - cos, in the order of choice.

    Parameters
    ----------
    features : array, shape (N, E)
        Features of the tokens.
    count : int
        Number of tokens M, at most N.

    Returns
    -------
    array of int, shape (M,)
        The first is the token that is farthest from its nearest neighbour. Of equal distances, the lower index is
        taken.

    Notes
    -----
    The distance to the nearest chosen token is one minus the largest cosine to a chosen token, so one vector of largest
    cosines is kept: O(N^2 E) for the cosines, all of which the first choice needs, then O(M N). Memory O(N^2).
    """
    xp = namespace(features)
    precision = Precision.of(features)
    similarity = cosines(precision.enter(features), precision)
    everything = arange_indices(features.shape[0], features)
    available = everything >= 0
    nearest = largest_other(similarity)
    chosen = []
    for step in range(count):
        distance = precision.round(1 - nearest)
        best = xp.argmax(xp.where(available, distance, xp.full_like(distance, -xp.inf)))[None]
        chosen.append(best)
        available = available & (everything != best)
        row = tokens_at(similarity, best)[0, :]
        nearest = row if step == 0 else xp.maximum(nearest, row)
    return xp.concat(chosen)

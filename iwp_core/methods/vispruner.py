"""VisPruner: important tokens by attention of the class token, diverse ones by removing near duplicates."""

from iwp_core._arrays import Array, arange_indices, namespace, order_descending
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._cosine import cosines
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, tokens_at

__all__ = ["vispruner"]

REMOVED = 8
"""Tokens that one pass removes at most."""


def vispruner(features: Array, attention: Array, /, budget: float, *, important: float = 0.5) -> Array:
    """Keep the most attended tokens, and of the others those that are least alike.

    Reads the features and one layer's attention of the vision tower.

    Parameters
    ----------
    features : array, shape (N, E)
        Patch features, without the class token.
    attention : array, shape (H, N)
        Soft-max attention of the class token to each patch, by head; a tower without class token: the mean over all
        queries.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    important : float
        Share of the kept tokens chosen by attention, 0 to 1: floor(M * important) of them.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, or a number is out of range.

    Notes
    -----
    The others are listed by falling attention. Each pass compares the entries at even places of the list with those at
    odd places, and removes the 8 even ones that are most similar to an odd one; the list then holds the even ones by
    falling similarity, and the odd ones behind. Ties: earlier place first. Half-precision inputs are rounded after
    every operation, as the official code does. Deviation: an odd list and a pass that would remove more than the even
    entries, where the official code raises or loses count, work (the even entries are one more, or fewer are removed).

    References
    ----------
    Zhang et al.: Beyond Text-Visual Attention. ICCV 2025, arXiv 2412.01818v2; Theia-4869/VisPruner at aefa01a.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
    >>> vispruner(x, np.asarray([[0.4, 0.3, 0.2, 0.1]]), 3)
    array([0, 2, 3])
    """
    check_arrays({"features": (features, "N E"), "attention": (attention, "H N")})
    check_number("important", important, 0.0, 1.0)
    xp = namespace(features)
    precision = Precision.of(features, attention)
    count = tokens_to_keep(budget, features.shape[0])
    attended = int(count * important)
    order = order_descending(precision.mean(precision.enter(attention), axis=0))
    diverse = order[attended:]
    if attended < count < features.shape[0]:
        diverse = _least_alike(precision.enter(features), diverse, count - attended, precision)
    return in_sequence(xp.concat([order[:attended], diverse[: count - attended]]))


def _least_alike(features: Array, listed: Array, count: int, precision: Precision) -> Array:
    """Shorten a list of tokens to `count`, in the order that the passes leave."""
    xp = namespace(features)
    similarity = cosines(tokens_at(features, listed), precision)
    places = arange_indices(listed.shape[0], listed)
    while places.shape[0] > count:
        even, odd = places[0::2], places[1::2]
        alike = xp.max(xp.take(tokens_at(similarity, even), odd, axis=1), axis=1)
        left = order_descending(alike)[min(REMOVED, places.shape[0] - count, even.shape[0]) :]
        places = xp.concat([xp.take(even, left), odd])
    return xp.take(listed, places)

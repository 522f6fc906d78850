"""VisPruner: keep the most attended tokens, and of the others those that are least similar to each other."""

from iwp_core._arrays import Array, arange_indices, namespace, order_descending
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._cosine import cosines
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, tokens_at
from iwp_core.methods._ties import head_mean

__all__ = ["vispruner"]

REMOVED = 8
"""Tokens that one pass removes at most."""


@in_context
def vispruner(features: Array, attention: Array, /, budget: float, *, important: float = 0.5) -> Array:
    """Keep the most attended tokens, and of the others those that are least similar to each other.

    The published method reads features and attention of one layer of the vision tower.

    Parameters
    ----------
    features : array of float, shape (N, E)
        Features of the patches, without the class token.
    attention : array of float, shape (H, N)
        Softmax attention of the class token to each patch, for each head of the tower. Without a class token: the mean
        attention over all queries.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    important : float
        Share of the kept tokens that is chosen by attention, 0 to 1: int(M * important) tokens.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range.

    Notes
    -----
    The other tokens are listed by falling attention and lose up to 8 in each pass, until the budget is met. A pass
    compares the entries at even places of the list with those at odd places, and removes the even ones that are most
    similar to an odd one. The new list has the even ones by falling similarity, then the odd ones. Of equal scores, the
    earlier place is taken. In half precision every operation is rounded, as in the official code.

    Deviation: the official code raises or keeps another number of tokens if a list has odd length, or if a pass would
    remove more than all even entries. Here an odd list has one more even entry, and such a pass removes fewer.

    References
    ----------
    Zhang et al.: Beyond Text-Visual Attention. ICCV 2025, arXiv 2412.01818v2. Code: Theia-4869/VisPruner at aefa01a.

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
    order = order_descending(head_mean(attention, precision))
    diverse = order[attended:]
    if attended < count < features.shape[0]:
        diverse = _least_alike(precision.enter(features), diverse, count - attended, precision)
    return in_sequence(xp.concat([order[:attended], diverse[: count - attended]]))


def _least_alike(features: Array, listed: Array, count: int, precision: Precision) -> Array:
    """Shorten a list of tokens to `count`, and return it in the order in which the passes leave it."""
    xp = namespace(features)
    similarity = cosines(tokens_at(features, listed), precision)
    places = arange_indices(listed.shape[0], listed)
    while places.shape[0] > count:
        even, odd = places[0::2], places[1::2]
        alike = xp.max(xp.take(tokens_at(similarity, even), odd, axis=1), axis=1)
        left = order_descending(alike)[min(REMOVED, places.shape[0] - count, even.shape[0]) :]
        places = xp.concat([xp.take(even, left), odd])
    return xp.take(listed, places)

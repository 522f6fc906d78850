"""V2Drop: keep the visual tokens that a layer changes most."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["v2drop"]


def v2drop(before: Array, after: Array, /, budget: float) -> Array:
    """Keep the visual tokens whose states a layer of the language model changed most.

    Parameters
    ----------
    before, after : array, shape (N, E)
        Hidden states of the visual tokens entering layer l - 1, and entering layer l, where tokens are dropped.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or `budget` no real number.
    ValueError
        If shapes do not fit, data is not finite, or the budget is out of range.

    Notes
    -----
    The change is the Euclidean length of the difference. Ties: lower index first. Half-precision inputs are rounded
    after every operation, as the official code does. Deviations: M is the library's rounding of a share, where the
    official code takes max(1, int(n * share)); and each sample has its own indices.

    References
    ----------
    Chen et al.: Variation-aware Vision Token Dropping. arXiv 2509.01552; xuyang-liu16/V2Drop at 219e03e.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.zeros((3, 2))
    >>> v2drop(x, np.asarray([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0]]), 2)
    array([1, 2])
    """
    check_arrays({"before": (before, "N E"), "after": (after, "N E")})
    precision = Precision.of(before, after)
    change = precision.norm(precision.round(precision.enter(after) - precision.enter(before)))
    return in_sequence(largest(change, tokens_to_keep(budget, change.shape[0])))

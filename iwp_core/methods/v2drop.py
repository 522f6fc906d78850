"""V2Drop: keep the visual tokens whose states a layer changes most."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["v2drop"]


@in_context
def v2drop(before: Array, after: Array, /, budget: float) -> Array:
    """Keep the visual tokens whose states a layer of the language model changed most.

    Parameters
    ----------
    before, after : array of float, shape (N, E)
        States of the visual tokens that enter the layer before the pruning layer, and that enter the pruning layer.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if `budget` is not a real number.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if `budget`
        is out of range.

    Notes
    -----
    The change is the Euclidean norm of the difference. Of equal scores, the lower index is taken. In half precision
    every operation is rounded, as in the official code.

    Deviations: a share of the tokens is rounded as in `select_tokens`, where the official code takes max(1, int(n *
    share)). Each sample has its own indices, where the official code takes those of the first sample for the whole
    batch.

    References
    ----------
    Chen et al.: Variation-aware Vision Token Dropping. arXiv 2509.01552. Code: xuyang-liu16/V2Drop at 219e03e.

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

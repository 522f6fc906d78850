"""DivPrune: keep visual tokens that are far apart from each other."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._ranking import in_sequence
from iwp_core.methods.max_min import greedy_max_min

__all__ = ["divprune", "divprune_order"]


@in_context
def divprune(features: Array, /, budget: float) -> Array:
    """Keep tokens that greedily maximise the smallest cosine distance between any two kept tokens.

    The published method reads the visual tokens among the input embeddings of the language model. Hidden states of a
    later layer work too.

    Parameters
    ----------
    features : array of float, shape (N, E)
        Embeddings or states of the tokens.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If `features` is not a floating-point array, or `budget` is not a real number.
    ValueError
        If `features` does not have two non-empty axes, an entry or a computed value is not finite, or `budget` is out
        of range.

    Notes
    -----
    The first token is the one that is farthest from its nearest neighbour. Of equal scores, the lower index is taken.
    In half precision every operation is rounded, as in the official code. O(N^2 E + M N) time, O(N^2) memory.

    Deviations from the official code: no token is chosen twice, also where fewer than M tokens differ or M exceeds N; a
    row of zeros has distance 1 to all others, where the official code computes NaN; a single token is kept.

    References
    ----------
    Alvar et al.: DivPrune. CVPR 2025, arXiv 2503.02175. Code: vbdi/divprune at 799e2d9.

    Examples
    --------
    >>> import numpy as np
    >>> divprune(np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 2)
    array([0, 2])
    """
    return in_sequence(divprune_order(features, budget))


@in_context
def divprune_order(features: Array, /, budget: float) -> Array:
    """Return the tokens that `divprune` keeps, in the order of choice.

    Parameters
    ----------
    features, budget : array, int or float
        As for `divprune`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the kept tokens, the first choice first.

    Raises
    ------
    TypeError, ValueError
        As `divprune`.

    Examples
    --------
    >>> import numpy as np
    >>> divprune_order(np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 2)
    array([2, 0])
    """
    check_arrays({"features": (features, "N E")})
    return greedy_max_min(features, tokens_to_keep(budget, features.shape[0]))

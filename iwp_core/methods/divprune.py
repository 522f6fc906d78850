"""DivPrune: keep visual tokens that are far apart."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._ranking import in_sequence
from iwp_core.methods.max_min import greedy_max_min

__all__ = ["divprune", "divprune_order"]


def divprune(features: Array, /, budget: float) -> Array:
    """Keep tokens that maximise, greedily, the least cosine distance between any two.

    Reads the visual rows of the language model's input embeddings (as published), or any states of the tokens.

    Parameters
    ----------
    features : array, shape (N, E)
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If `features` is no floating-point array, or `budget` no real number.
    ValueError
        If `features` has another rank, is empty or not finite, or the budget is out of range.

    Notes
    -----
    Ties: lower index first. Half-precision inputs are rounded after every operation, as the official code does.
    Deviations from the official code: chosen tokens cannot be chosen again, so M are distinct where fewer than M differ
    or M exceeds N; a row of zeros is at distance 1 from all others instead of NaN; one token alone is kept.
    O(N^2 E + M N) time, O(N^2) memory.

    References
    ----------
    Alvar et al.: DivPrune. CVPR 2025, arXiv 2503.02175; vbdi/divprune at 799e2d9.

    Examples
    --------
    >>> import numpy as np
    >>> divprune(np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 2)
    array([0, 2])
    """
    return in_sequence(divprune_order(features, budget))


def divprune_order(features: Array, /, budget: float) -> Array:
    """Return what `divprune` keeps, in the order of choice.

    Parameters
    ----------
    features, budget : array, int or float
        As for `divprune`.

    Returns
    -------
    array of int64, shape (M,)

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

"""FastV: keep the visual tokens that the last token attends to most; or the last visual token."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["fastv", "fastv_visual"]


def fastv(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that get most attention from the last token of the prompt.

    Reads the attention of the layer before the one where tokens are dropped.

    Parameters
    ----------
    attention : array, shape (Hq, N)
        Soft-max attention of the last token to each visual token, by head.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If `attention` is no floating-point array, or `budget` no real number.
    ValueError
        If `attention` has another rank, is empty or not finite, or the budget is out of range.

    Notes
    -----
    Ties: lower index first. Deviation from the official code: M is the library's rounding of a share, where the
    official Hugging Face version takes Python's round(N (1 - r)), halves to even; and each sample has its own indices.

    References
    ----------
    Chen et al.: An Image is Worth 1/2 Tokens After Layer 2. arXiv 2403.06764; pkunlp-icler/FastV at d165972.

    Examples
    --------
    >>> import numpy as np
    >>> fastv(np.asarray([[0.1, 0.4, 0.2], [0.1, 0.2, 0.4]]), 2)
    array([1, 2])
    """
    check_arrays({"attention": (attention, "Hq N")})
    precision = Precision.of(attention)
    scores = precision.mean(precision.enter(attention), axis=0)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))


def fastv_visual(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that get most attention from the last visual token, which has seen no question.

    Parameters
    ----------
    attention : array, shape (Hq, N)
        Soft-max attention of the last visual token to each visual token (itself included), by head.
    budget : int or float
        As for `fastv`.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError, ValueError
        As `fastv`.

    References
    ----------
    arXiv 2502.11501 (there FastV_VIS).

    Examples
    --------
    >>> import numpy as np
    >>> fastv_visual(np.asarray([[0.1, 0.4, 0.5]]), 2)
    array([1, 2])
    """
    return fastv(attention, budget)

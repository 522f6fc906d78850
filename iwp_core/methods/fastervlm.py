"""FasterVLM: keep the visual tokens that the class token of the vision tower attends to most."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["fastervlm"]


def fastervlm(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that get most attention from the class token.

    Reads the attention of one layer of the vision tower.

    Parameters
    ----------
    attention : array, shape (H, N)
        Soft-max attention of the class token to each patch, by head; a tower without class token: the mean over all
        queries.
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
    Ties: lower index first. No deviation from the official code but that.

    References
    ----------
    Zhang et al.: [CLS] Attention is All You Need for Training-Free Visual Token Pruning. arXiv 2412.01818;
    Theia-4869/FasterVLM at f5d5f12.

    Examples
    --------
    >>> import numpy as np
    >>> fastervlm(np.asarray([[0.1, 0.4, 0.2], [0.1, 0.2, 0.4]]), 2)
    array([1, 2])
    """
    check_arrays({"attention": (attention, "H N")})
    precision = Precision.of(attention)
    scores = precision.mean(precision.enter(attention), axis=0)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))

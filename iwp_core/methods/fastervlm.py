"""FasterVLM: keep the visual tokens that the class token of the vision tower attends to most."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest
from iwp_core.methods._ties import head_mean

__all__ = ["fastervlm"]


@in_context
def fastervlm(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that the class token attends to most.

    The published method reads the attention of one layer of the vision tower.

    Parameters
    ----------
    attention : array of float, shape (H, N)
        Softmax attention of the class token to each patch, for each head of the tower. Without a class token: the mean
        attention over all queries.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If `attention` is not a floating-point array, or `budget` is not a real number.
    ValueError
        If `attention` does not have two non-empty axes or is not finite, or `budget` is out of range.

    Notes
    -----
    A token's score is its attention, averaged over heads. Of equal scores, the lower index is taken, which is the only
    deviation from the official code.

    References
    ----------
    Zhang et al.: [CLS] Attention is All You Need for Training-Free Visual Token Pruning. arXiv 2412.01818. Code:
    Theia-4869/FasterVLM at f5d5f12.

    Examples
    --------
    >>> import numpy as np
    >>> fastervlm(np.asarray([[0.1, 0.4, 0.2], [0.1, 0.2, 0.4]]), 2)
    array([1, 2])
    """
    check_arrays({"attention": (attention, "H N")})
    precision = Precision.of(attention)
    scores = head_mean(attention, precision)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))

"""FastV reversed: a control that keeps the visual tokens that the last token attends to least."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest
from iwp_core.methods._ties import head_mean

__all__ = ["fastv_reverse"]


@in_context
def fastv_reverse(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that the last token attends to least. This is a control, which should do badly.

    Parameters
    ----------
    attention : array of float, shape (Hq, N)
        As for `fastv`.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError, ValueError
        As `fastv`.

    Notes
    -----
    Of equal scores, the lower index is taken. Algorithm 2 as printed negates the scores twice, which is FastV. The
    results in the paper's table show that the least attended tokens were kept, as here.

    References
    ----------
    Wen et al.: Token Pruning in Multimodal Large Language Models: Are We Solving the Right Problem? arXiv 2502.11501,
    algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> fastv_reverse(np.asarray([[0.1, 0.4, 0.2]]), 1)
    array([0])
    """
    check_arrays({"attention": (attention, "Hq N")})
    precision = Precision.of(attention)
    scores = head_mean(attention, precision)
    return in_sequence(largest(-scores, tokens_to_keep(budget, scores.shape[0])))

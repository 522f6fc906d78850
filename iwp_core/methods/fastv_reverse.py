"""FastV reversed: a control that keeps what the last token attends to least."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["fastv_reverse"]


def fastv_reverse(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that get least attention from the last token: a control that should do badly.

    Parameters
    ----------
    attention : array, shape (Hq, N)
        As for `fastv`.
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
    Wen et al.: Token Pruning in Multimodal Large Language Models: Are We Solving the Right Problem? arXiv 2502.11501,
    algorithm 2. As printed it negates twice and equals FastV; its table shows that the least attended were kept.

    Examples
    --------
    >>> import numpy as np
    >>> fastv_reverse(np.asarray([[0.1, 0.4, 0.2]]), 1)
    array([0])
    """
    check_arrays({"attention": (attention, "Hq N")})
    precision = Precision.of(attention)
    scores = precision.mean(precision.enter(attention), axis=0)
    return in_sequence(largest(-scores, tokens_to_keep(budget, scores.shape[0])))

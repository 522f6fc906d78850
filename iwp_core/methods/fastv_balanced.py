"""FastV balanced with redundancy: attention from the last token against similarity to it."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["fastv_balanced"]


def fastv_balanced(attention: Array, hidden: Array, last: Array, /, budget: float, *, balance: float = 0.5) -> Array:
    """Keep the visual tokens that the last token attends to and that are unlike it.

    Reads attention of the layer before the one where tokens are dropped, and the states entering that one.

    Parameters
    ----------
    attention : array, shape (Hq, N)
        Soft-max attention of the last token of the prompt to each visual token, by head.
    hidden : array, shape (N, E)
        States of the visual tokens.
    last : array, shape (E,)
        State of the last token.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    balance : float
        alpha, 0 to 1: 1 is FastV, 0 needs no attention.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending: those of largest alpha p + (1 - alpha) (1 - c), with attention p and cosine c each
        scaled to 0..1 over the tokens; where all are equal they count 0.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, or a number is out of range.

    Notes
    -----
    Ties: lower index first. No official code.

    References
    ----------
    Wen et al.: Token Pruning in Multimodal Large Language Models: Are We Solving the Right Problem? arXiv 2502.11501,
    equation 6 and footnote 2.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    >>> fastv_balanced(np.asarray([[0.6, 0.4]]), x, x[0, :], 1, balance=0.3)
    array([1])
    """
    check_arrays({"attention": (attention, "Hq N"), "hidden": (hidden, "N E"), "last": (last, "E")})
    check_number("balance", balance, 0.0, 1.0)
    precision = Precision.of(attention, hidden, last)
    importance = precision.mean(precision.enter(attention), axis=0)
    units, unit = (precision.units(precision.enter(x)) for x in (hidden, last))
    redundancy = precision.round(units @ unit)
    score = balance * _scaled(importance, precision) + (1 - balance) * (1 - _scaled(redundancy, precision))
    return in_sequence(largest(precision.round(score), tokens_to_keep(budget, score.shape[0])))


def _scaled(x: Array, precision: Precision) -> Array:
    xp = namespace(x)
    low, high = xp.min(x), xp.max(x)
    if bool(low == high):
        return xp.zeros_like(x)
    return precision.round(precision.round(x - low) / precision.round(high - low))

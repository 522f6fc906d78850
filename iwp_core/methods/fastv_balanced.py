"""FastV balanced with redundancy: attention from the last token, weighed against similarity to that token."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest
from iwp_core.methods._ties import head_mean, tied

__all__ = ["fastv_balanced"]


@in_context
def fastv_balanced(attention: Array, hidden: Array, last: Array, /, budget: float, *, balance: float = 0.5) -> Array:
    """Keep the visual tokens that the last token attends to and that are not similar to it.

    The published method reads the attention of the layer before the pruning layer, and the states that enter the
    pruning layer.

    Parameters
    ----------
    attention : array of float, shape (Hq, N)
        Softmax attention of the last token of the prompt to each visual token, for each head.
    hidden : array of float, shape (N, E)
        States of the visual tokens.
    last : array of float, shape (E,)
        State of the last token.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    balance : float
        Weight alpha of the attention, 0 to 1. 1 is FastV; 0 uses the states alone.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range.

    Notes
    -----
    The tokens with the largest alpha p + (1 - alpha) (1 - c) are kept. Here p is the attention, averaged over heads,
    and c the cosine of a token's state to that of the last token; both are min-max scaled over the tokens. If all p or
    all c are equal, they count as 0. Of equal scores, the lower index is taken. There is no official code.

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
    importance = head_mean(attention, precision)
    units, unit = (precision.units(precision.enter(x)) for x in (hidden, last))
    redundancy = tied(precision.round(units @ unit), hidden[None, :, :])
    score = balance * _scaled(importance, precision) + (1 - balance) * (1 - _scaled(redundancy, precision))
    return in_sequence(largest(precision.round(score), tokens_to_keep(budget, score.shape[0])))


def _scaled(x: Array, precision: Precision) -> Array:
    xp = namespace(x)
    low, high = xp.min(x), xp.max(x)
    if bool(low == high):
        return xp.zeros_like(x)
    return precision.round(precision.round(x - low) / precision.round(high - low))

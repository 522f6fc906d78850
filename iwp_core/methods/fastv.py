"""FastV: keep the visual tokens that the last token of the prompt, or the last visual token, attends to most."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest
from iwp_core.methods._ties import head_mean

__all__ = ["fastv", "fastv_visual"]


@in_context
def fastv(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that the last token of the prompt attends to most.

    The published method reads the attention of the layer before the pruning layer.

    Parameters
    ----------
    attention : array of float, shape (Hq, N)
        Softmax attention of the last token to each visual token, for each head.
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
    A token's score is its attention, averaged over heads. Of equal scores, the lower index is taken.

    Deviations: a share of the tokens is rounded as in `select_tokens`, where the official Hugging Face version takes
    Python's round(N (1 - r)), halves to even. Each sample has its own indices, where the official code takes those of
    the first sample for the whole batch.

    References
    ----------
    Chen et al.: An Image is Worth 1/2 Tokens After Layer 2. arXiv 2403.06764. Code: pkunlp-icler/FastV at d165972.

    Examples
    --------
    >>> import numpy as np
    >>> fastv(np.asarray([[0.1, 0.4, 0.2], [0.1, 0.2, 0.4]]), 2)
    array([1, 2])
    """
    check_arrays({"attention": (attention, "Hq N")})
    precision = Precision.of(attention)
    scores = head_mean(attention, precision)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))


@in_context
def fastv_visual(attention: Array, /, budget: float) -> Array:
    """Keep the visual tokens that the last visual token attends to most. It has not seen the question.

    Parameters
    ----------
    attention : array of float, shape (Hq, N)
        Softmax attention of the last visual token to each visual token, itself included, for each head.
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

    References
    ----------
    Wen et al.: Token Pruning in Multimodal Large Language Models: Are We Solving the Right Problem? arXiv 2502.11501,
    where it is called FastV_VIS.

    Examples
    --------
    >>> import numpy as np
    >>> fastv_visual(np.asarray([[0.1, 0.4, 0.5]]), 2)
    array([1, 2])
    """
    return fastv(attention, budget)

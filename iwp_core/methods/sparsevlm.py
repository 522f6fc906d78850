"""SparseVLM: keep the visual tokens that a part of the text, the raters, attends to most."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._context import in_context
from iwp_core.methods._ranking import in_sequence, largest
from iwp_core.methods.sparsevlm_scores import sparsevlm_scores

__all__ = ["sparsevlm"]


@in_context
def sparsevlm(attention: Array, raters: Array, /, budget: float, *, gravity: Array | None = None) -> Array:
    """Keep the visual tokens that the raters attend to most, at one stage.

    The published method reads the attention of the layer after which tokens are dropped: layers 2, 6 and 15.

    Parameters
    ----------
    attention : array of float, shape (Hq, T, N)
        Softmax attention of each text token after the image to each visual token, for each head.
    raters : array of int, shape (R,)
        Indices of the text tokens that score, ascending; see `sparsevlm_raters`.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    gravity : array of float, shape (T, N)
        For version 2 of the method: see `rotary_gravity`. The attention is divided by it, and only the heads of
        `sparsevlm_heads` count.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if `raters` is not an integer array; if
        `budget` is not a real number.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if `raters`
        is not ascending or out of range; if `budget` is out of range.

    Notes
    -----
    Of equal scores, the lower index is taken. In half precision every operation is rounded, as in the official code. In
    version 1, some of the dropped tokens come back as merged tokens: see `sparsevlm_recycle`, and `sparsevlm_counts`,
    which makes room for them in a budget.

    Deviations: any budget is allowed, where the official code has a table of four; a budget of N keeps all tokens,
    where the official code keeps at most N - 1.

    References
    ----------
    Zhang et al.: SparseVLM. ICML 2025, arXiv 2410.04417. Code: Gumpest/SparseVLMs at 26a5f48.

    Examples
    --------
    >>> import numpy as np
    >>> sparsevlm(np.asarray([[[0.1, 0.3, 0.2], [0.5, 0.2, 0.1]]]), np.asarray([0]), 2)
    array([1, 2])
    """
    scores = sparsevlm_scores(attention, raters, gravity=gravity)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))

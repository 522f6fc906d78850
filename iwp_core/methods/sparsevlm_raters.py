"""Raters of SparseVLM: the text tokens that look at the picture."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._precision import Precision

__all__ = ["sparsevlm_raters"]


def sparsevlm_raters(visual: Array, text: Array, /) -> Array:
    """Return the text tokens that look at the picture more than text tokens do on average, ascending.

    Parameters
    ----------
    visual : array, shape (N, E)
        Input embeddings of the visual tokens.
    text : array, shape (T, E)
        Input embeddings of the tokens after them.

    Returns
    -------
    array of int64, shape (R,)
        All text tokens where none is above the mean, which the official code cannot do.

    Raises
    ------
    TypeError
        If an argument is no floating-point array.
    ValueError
        If shapes do not fit or data is not finite.

    Notes
    -----
    A text token's look is its share of the soft-max over text tokens of plain products with a visual token, mean over
    visual tokens. Half-precision inputs are rounded after every operation, as the official code does.

    References
    ----------
    Zhang et al.: SparseVLM. ICML 2025, arXiv 2410.04417; Gumpest/SparseVLMs at 26a5f48.

    Examples
    --------
    >>> import numpy as np
    >>> sparsevlm_raters(np.asarray([[1.0, 0.0]]), np.asarray([[0.0, 1.0], [2.0, 0.0]]))
    array([1])
    """
    check_arrays({"visual": (visual, "N E"), "text": (text, "T E")})
    xp = namespace(visual)
    precision = Precision.of(visual, text)
    logits = precision.round(precision.enter(visual) @ xp.matrix_transpose(precision.enter(text)))
    looks = precision.mean(precision.softmax(logits), axis=0)
    above = looks > precision.mean(looks, axis=0)
    found = xp.argsort(xp.astype(~above, xp.int32), stable=True)
    return found[: int(xp.sum(xp.astype(above, xp.int32)))] if bool(xp.any(above)) else found

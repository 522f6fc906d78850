"""Raters of SparseVLM: the text tokens that are most related to the picture."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ties import tied

__all__ = ["sparsevlm_raters"]


@in_context
def sparsevlm_raters(visual: Array, text: Array, /) -> Array:
    """Return the text tokens that are more related to the picture than the average text token.

    Parameters
    ----------
    visual : array of float, shape (N, E)
        Input embeddings of the visual tokens.
    text : array of float, shape (T, E)
        Input embeddings of the text tokens after them.

    Returns
    -------
    array of int64, shape (R,)
        Indices of the raters, ascending. If no text token is above the average, all are returned; the official code
        cannot handle this case.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite.

    Notes
    -----
    For each visual token, the softmax over the text tokens of their unscaled dot products with it is taken. A text
    token's relation to the picture is its weight in these, averaged over visual tokens. In half precision every
    operation is rounded, as in the official code.

    References
    ----------
    Zhang et al.: SparseVLM. ICML 2025, arXiv 2410.04417. Code: Gumpest/SparseVLMs at 26a5f48.

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
    looks = tied(precision.mean(precision.softmax(logits), axis=0), text[None, :, :])
    above = looks > precision.mean(looks, axis=0)
    found = xp.argsort(xp.astype(~above, xp.int32), stable=True)
    return found[: int(xp.sum(xp.astype(above, xp.int32)))] if bool(xp.any(above)) else found

"""Attention of the class token as PruMerge computes it."""

from iwp_core._arrays import Array
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ties import tied

__all__ = ["prumerge_attention"]


@in_context
def prumerge_attention(query: Array, keys: Array, /) -> Array:
    """Return the attention of the class token to each patch, computed without splitting the heads.

    Parameters
    ----------
    query : array of float, shape (D,)
        Query of the class token, all heads concatenated.
    keys : array of float, shape (N + 1, D)
        Keys of the class token, which comes first, and of the patches, all heads concatenated.

    Returns
    -------
    array of float, shape (N,)
        Softmax attention over all N + 1 tokens, that of the class token to itself left out. In the dtype of the inputs.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite.

    References
    ----------
    As `prumerge`.

    Examples
    --------
    >>> import numpy as np
    >>> prumerge_attention(np.asarray([1.0]), np.zeros((4, 1)))
    array([0.25, 0.25, 0.25])
    """
    sizes = check_arrays({"query": (query, "D"), "keys": (keys, "L D")})
    precision = Precision.of(query, keys)
    logits = precision.round(precision.enter(keys) @ precision.enter(query))
    weights = precision.softmax(precision.round(logits * sizes["D"] ** -0.5))
    return precision.leave(tied(weights[1:], keys[None, 1:, :]))

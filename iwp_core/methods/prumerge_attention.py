"""Attention of the class token for PruMerge."""

from iwp_core._arrays import Array
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._precision import Precision

__all__ = ["prumerge_attention"]


def prumerge_attention(query: Array, keys: Array, /) -> Array:
    """Return the attention of the class token over its own key and the patches', heads not split, without its own.

    Parameters
    ----------
    query : array, shape (D,)
        Of the class token, all heads in a row.
    keys : array, shape (N + 1, D)
        The class token's key first.

    Returns
    -------
    array, shape (N,)

    Raises
    ------
    TypeError
        If an argument is no floating-point array.
    ValueError
        If shapes do not fit or data is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> prumerge_attention(np.asarray([1.0]), np.zeros((4, 1)))
    array([0.25, 0.25, 0.25])
    """
    sizes = check_arrays({"query": (query, "D"), "keys": (keys, "L D")})
    precision = Precision.of(query, keys)
    logits = precision.round(precision.enter(keys) @ precision.enter(query))
    return precision.leave(precision.softmax(precision.round(logits * sizes["D"] ** -0.5))[1:])

"""Importance of visual tokens for PACT: efficient unimportant token identification (EUTI)."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays, check_indices
from iwp_core.methods._precision import Precision

__all__ = ["pact_importance"]


def pact_importance(hidden: Array, queries: Array, keys: Array, visual: Array, /) -> Array:
    """Return how important each visual token is: EUTI, by a global query and the size of the state.

    Parameters
    ----------
    hidden : array, shape (L, E)
        States entering the layer, of all tokens up to the last visual one.
    queries : array, shape (Hq, L, D)
        Their queries without rotary positions.
    keys : array, shape (H, L, D)
        Their keys without rotary positions; Hq is a multiple of H.
    visual : array of int, shape (N,)
        Where the visual tokens stand, ascending.

    Returns
    -------
    array, shape (N,)
        Float32 or float64.

    Raises
    ------
    TypeError
        If an argument is no floating-point array (`visual`: no integer array).
    ValueError
        If shapes or heads do not fit, data is not finite, or indices are out of range.

    Notes
    -----
    ||h_i|| times the attention to token i of the mean query of all L tokens, mean over heads. With half-precision
    inputs the mean query is rounded and all that follows is float32, as in the official code. The paper takes the mean
    query of the visual tokens; the code that of all L, as here.

    References
    ----------
    Dhouib et al.: PACT. CVPR 2025, arXiv 2504.08966; orailix/PACT at cf9a0c9.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.ones((1, 2, 1))
    >>> pact_importance(np.asarray([[1.0], [3.0]]), rows, rows, np.asarray([0, 1]))
    array([0.5, 1.5])
    """
    sizes = check_arrays({"hidden": (hidden, "L E"), "queries": (queries, "Hq L D"), "keys": (keys, "H L D")})
    check_indices("visual", visual, sizes["L"], ("hidden", hidden))
    groups, rest = divmod(sizes["Hq"], sizes["H"])
    if rest:
        msg = f"`queries` has {sizes['Hq']} heads, expected a multiple of the {sizes['H']} heads of `keys`"
        raise ValueError(msg)
    xp = namespace(hidden)
    precision = Precision.of(hidden, queries, keys)
    full = Precision(None, precision.compute)  # the official code goes on in float32 once it has the mean query
    query = xp.reshape(precision.mean(precision.enter(queries), axis=1), (sizes["H"], groups, sizes["D"]))
    logits = query @ xp.matrix_transpose(precision.enter(keys)) / sizes["D"] ** 0.5
    attention = xp.reshape(full.softmax(logits), (sizes["Hq"], sizes["L"]))
    scores = full.mean(attention, axis=0) * full.norm(full.enter(hidden))
    return xp.take(scores, visual)

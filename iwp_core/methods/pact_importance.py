"""Importance of visual tokens as PACT computes it: efficient unimportant token identification (EUTI)."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays, check_indices
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ties import tied

__all__ = ["pact_importance"]


@in_context
def pact_importance(hidden: Array, queries: Array, keys: Array, visual: Array, /) -> Array:
    """Return the importance of each visual token: the norm of its state times its attention from a global query (EUTI).

    Parameters
    ----------
    hidden : array of float, shape (L, E)
        States that enter the layer, of all tokens up to the last visual token.
    queries : array of float, shape (Hq, L, D)
        Queries of these tokens without rotary embedding.
    keys : array of float, shape (H, L, D)
        Keys of these tokens without rotary embedding. Hq is a multiple of H.
    visual : array of int, shape (N,)
        Indices of the visual tokens among the L tokens, ascending.

    Returns
    -------
    array of float, shape (N,)
        Importance, at least 0, in float32 or float64.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if `visual` is not an integer array.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if Hq is not
        a multiple of H; if `visual` is not ascending or out of range.

    Notes
    -----
    The global query of a head is the mean of the queries of all L tokens. Its softmax attention over the L keys is
    averaged over heads. With float16 or bfloat16 inputs the mean query is rounded to that dtype and the rest is
    float32, as in the official code. The paper averages the queries of the visual tokens only; the official code
    averages all, as here.

    References
    ----------
    Dhouib et al.: PACT. CVPR 2025, arXiv 2504.08966. Code: orailix/PACT at cf9a0c9.

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
    read = xp.take(hidden, visual, axis=0)[None, :, :], xp.take(keys, visual, axis=1)
    return tied(xp.take(scores, visual), *read)

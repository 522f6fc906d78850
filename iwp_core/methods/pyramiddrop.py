"""PyramidDrop: at each stage keep the visual tokens that the last token would attend to in the next layer."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_indices
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["pyramiddrop", "pyramiddrop_scores"]


def pyramiddrop(query: Array, keys: Array, visual: Array, /, budget: float) -> Array:
    """Keep the visual tokens that get most attention from the last token of the prompt, at one stage.

    Reads the query and keys that the layer *at whose entry* tokens are dropped computes from the states entering it.

    Parameters
    ----------
    query : array, shape (Hq, D)
        Of the last token of the prompt, with rotary positions.
    keys : array, shape (Hq, L, D)
        Of all tokens of the sequence, with rotary positions; key/value heads repeated to Hq.
    visual : array of int, shape (N,)
        Where the visual tokens stand in the sequence, ascending.
    budget : int or float
        Tokens to keep of the N, or their share, as in `select_tokens`. As published half, a quarter and an eighth of
        the first stage's at layers 8, 16 and 24 of 32.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices among the N, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array (`visual`: no integer array), or `budget` no real number.
    ValueError
        If shapes do not fit, data is not finite, indices are out of range, or the budget is.

    Notes
    -----
    Ties: lower index first. Half-precision inputs are rounded after every operation, as the official code does.
    Deviations: M is the library's rounding of a share, where the official code takes int(ratio * N); fewer key/value
    heads than query heads work, once repeated.

    References
    ----------
    Xing et al.: PyramidDrop. CVPR 2025, arXiv 2410.17247; Cooperx521/PyramidDrop at 6444f30.

    Examples
    --------
    >>> import numpy as np
    >>> keys = np.asarray([[[1.0], [0.0], [2.0], [3.0]]])
    >>> pyramiddrop(np.asarray([[1.0]]), keys, np.asarray([0, 1, 2]), 2)
    array([0, 2])
    """
    scores = pyramiddrop_scores(query, keys, visual)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))


def pyramiddrop_scores(query: Array, keys: Array, visual: Array, /) -> Array:
    """Return the attention of the last token to each visual token, mean over heads, shape (N,).

    Parameters
    ----------
    query, keys, visual : array
        As for `pyramiddrop`.

    Returns
    -------
    array, shape (N,)

    Raises
    ------
    TypeError, ValueError
        As `pyramiddrop`.
    """
    sizes = check_arrays({"query": (query, "Hq D"), "keys": (keys, "Hq L D")})
    check_indices("visual", visual, sizes["L"], ("query", query))
    xp = namespace(query)
    precision = Precision.of(query, keys)
    logits = precision.round((precision.enter(keys) @ precision.enter(query)[..., None])[..., 0])
    attention = precision.softmax(precision.round(logits / sizes["D"] ** 0.5))
    return precision.mean(xp.take(attention, visual, axis=1), axis=0)

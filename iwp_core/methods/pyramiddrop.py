"""PyramidDrop: at each stage, keep the visual tokens that the last token would attend to in the pruning layer."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_indices
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest
from iwp_core.methods._ties import tied

__all__ = ["pyramiddrop", "pyramiddrop_scores"]


@in_context
def pyramiddrop(query: Array, keys: Array, visual: Array, /, budget: float) -> Array:
    """Keep the visual tokens that the last token of the prompt attends to most, at one stage.

    The published method reads query and keys of the pruning layer itself, computed from the states that enter it.

    Parameters
    ----------
    query : array of float, shape (Hq, D)
        Query of the last token of the prompt, with rotary embedding.
    keys : array of float, shape (Hq, L, D)
        Keys of all tokens of the sequence, with rotary embedding, each key/value head repeated for its query heads.
    visual : array of int, shape (N,)
        Indices of the visual tokens in the sequence, ascending.
    budget : int or float
        Number of the N tokens to keep, or their share, as in `select_tokens`. The paper keeps a half, a quarter and an
        eighth of the original tokens at layers 8, 16 and 24 of 32.

    Returns
    -------
    array of int64, shape (M,)
        Indices among the N visual tokens, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if `visual` is not an integer array; if
        `budget` is not a real number.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if `visual`
        is not ascending or out of range; if `budget` is out of range.

    Notes
    -----
    Of equal scores, the lower index is taken. In half precision every operation is rounded, as in the official code.

    Deviations: a share of the tokens is rounded as in `select_tokens`, where the official code takes int(ratio * N).
    Models with fewer key/value heads than query heads work if their keys are repeated.

    References
    ----------
    Xing et al.: PyramidDrop. CVPR 2025, arXiv 2410.17247. Code: Cooperx521/PyramidDrop at 6444f30.

    Examples
    --------
    >>> import numpy as np
    >>> keys = np.asarray([[[1.0], [0.0], [2.0], [3.0]]])
    >>> pyramiddrop(np.asarray([[1.0]]), keys, np.asarray([0, 1, 2]), 2)
    array([0, 2])
    """
    scores = pyramiddrop_scores(query, keys, visual)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))


@in_context
def pyramiddrop_scores(query: Array, keys: Array, visual: Array, /) -> Array:
    """Return the attention of the last token to each visual token, averaged over heads.

    Parameters
    ----------
    query, keys, visual : array
        As for `pyramiddrop`.

    Returns
    -------
    array of float, shape (N,)
        Softmax weights over all L tokens, in float32 or float64.

    Raises
    ------
    TypeError, ValueError
        As `pyramiddrop`.

    Examples
    --------
    >>> import numpy as np
    >>> pyramiddrop_scores(np.ones((1, 1)), np.zeros((1, 4, 1)), np.asarray([0, 1]))
    array([0.25, 0.25])
    """
    sizes = check_arrays({"query": (query, "Hq D"), "keys": (keys, "Hq L D")})
    check_indices("visual", visual, sizes["L"], ("query", query))
    xp = namespace(query)
    precision = Precision.of(query, keys)
    logits = precision.round((precision.enter(keys) @ precision.enter(query)[..., None])[..., 0])
    attention = precision.softmax(precision.round(logits / sizes["D"] ** 0.5))
    return tied(precision.mean(xp.take(attention, visual, axis=1), axis=0), xp.take(keys, visual, axis=1))

"""MustDrop: drop visual tokens that get little attention from all text together and from every single text token."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_indices, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, mask_of
from iwp_core.methods._ties import tied

__all__ = ["mustdrop"]


@in_context
def mustdrop(
    attention: Array,
    key_tokens: Array | None,
    /,
    *,
    share_threshold: float = 0.001,
    single_threshold: float = 0.001,
    budget: float | None = None,
) -> Array:
    """Keep the visual tokens that text attends to, and the key tokens, at one stage.

    The published method reads the attention of the layer after which tokens are dropped: layers 2, 6, 10 and 14.

    Parameters
    ----------
    attention : array of float, shape (Hq, T, N)
        Softmax attention of each text token after the image to each visual token, for each head.
    key_tokens : array of int, shape (R,), or None
        Indices of tokens that are always kept, ascending; see `mustdrop_key_tokens`. None if there are none.
    share_threshold : float
        A token is dropped if two conditions hold. First: of the attention that all text tokens give to all visual
        tokens, it gets less than this share, at least 0.
    single_threshold : float
        Second: the attention from every single text token is below this, at least 0.
    budget : int or float
        If given, it replaces both thresholds: number of tokens to keep, or their share, as in `select_tokens`. The key
        tokens stay, and of the others those with the largest share of the attention.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct. Without a `budget`, M depends on the data and may be 0.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if `key_tokens` is not an integer
        array; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range; if `budget` is less than the number of key tokens.

    Notes
    -----
    Attention is averaged over heads first. In half precision every operation is rounded, as in the official code.
    `budget` is ours; there is no other deviation. The stage of the method in the vision tower is `mustdrop_merge`.

    References
    ----------
    Liu et al.: Multi-Stage Vision Token Dropping. arXiv 2411.10803. Code: liuting20/MustDrop at 909afa5.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.asarray([[[0.1, 0.3, 0.0, 0.2], [0.5, 0.2, 0.0, 0.0]]])
    >>> mustdrop(rows, np.asarray([2]), share_threshold=0.2, single_threshold=0.3)
    array([0, 1, 2])
    """
    sizes = check_arrays({"attention": (attention, "Hq T N")})
    if key_tokens is not None:
        check_indices("key_tokens", key_tokens, sizes["N"], ("attention", attention))
    check_number("share_threshold", share_threshold, 0.0, float("inf"))
    check_number("single_threshold", single_threshold, 0.0, float("inf"))
    xp = namespace(attention)
    precision = Precision.of(attention)
    tokens = xp.matrix_transpose(attention)
    rows = tied(precision.mean(precision.enter(attention), axis=0), tokens)
    shares = tied(precision.sum(rows, axis=0), tokens)
    must = shares < 0 if key_tokens is None else mask_of(key_tokens, sizes["N"])
    if budget is not None:
        count = tokens_to_keep(budget, sizes["N"])
        if key_tokens is not None and count < key_tokens.shape[0]:
            msg = f"`budget` is {budget!r}, {count} tokens, expected at least the {key_tokens.shape[0]} of `key_tokens`"
            raise ValueError(msg)
        return in_sequence(largest(xp.where(must, xp.full_like(shares, xp.inf), shares), count))
    least = precision.round(precision.sum(shares, axis=0) * share_threshold)
    keep = must | (shares >= least) | (xp.max(rows, axis=0) >= single_threshold)
    order = xp.argsort(xp.astype(~keep, xp.int32), stable=True)
    return order[: int(xp.sum(xp.astype(keep, xp.int32)))]

"""MustDrop: merge alike windows in the vision tower, then drop what neither all text nor any text token attends to."""

import math

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_indices, check_number
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, mask_of

__all__ = ["mustdrop", "mustdrop_key_tokens"]


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

    Reads the attention of the layer after which tokens are dropped (as published layers 2, 6, 10 and 14).

    Parameters
    ----------
    attention : array, shape (Hq, T, N)
        Soft-max attention of each text token after the image to each visual token, by head.
    key_tokens : array of int, shape (R,), or None
        Indices kept in any case, ascending; see `mustdrop_key_tokens`. None where there are none.
    share_threshold : float
        A token is dropped if it gets less than this share of what all text tokens together give to all visual tokens,
    single_threshold : float
        and no text token gives it this much.
    budget : int or float
        Instead: tokens to keep, or their share, as in `select_tokens`: the share threshold is set so that the key
        tokens and those of largest share remain, whatever single text tokens give.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array (`key_tokens`: no integer array), or a number none.
    ValueError
        If shapes do not fit, data is not finite, a number is out of range, or the budget is below the key tokens.

    Notes
    -----
    Half-precision inputs are rounded after every operation, as the official code does. No deviation but `budget`.
    Stage V of the method, in the vision tower, is `mustdrop_merge`.

    References
    ----------
    Liu et al.: Multi-Stage Vision Token Dropping. arXiv 2411.10803; liuting20/MustDrop at 909afa5.

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
    rows = precision.mean(precision.enter(attention), axis=0)
    shares = precision.sum(rows, axis=0)
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


def mustdrop_key_tokens(attention: Array, /, *, share: float = 0.08) -> Array:
    """Return the visual tokens that get most attention from the class token, the largest first.

    Parameters
    ----------
    attention : array, shape (H, N)
        Soft-max attention of the class token to each token, by head.
    share : float
        Their share, rounded up.

    Returns
    -------
    array of int64, shape (ceil(share * N),)

    Raises
    ------
    TypeError, ValueError
        As `mustdrop`.
    """
    total = check_arrays({"attention": (attention, "H N")})["N"]
    check_number("share", share, 0.0, 1.0)
    precision = Precision.of(attention)
    return largest(precision.mean(precision.enter(attention), axis=0), max(1, math.ceil(share * total)))

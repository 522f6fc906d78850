"""DART: keep pivots, and for each pivot the visual tokens that are least similar to it."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count, check_exactly_one
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, remaining, tokens_at
from iwp_core.methods.dart_pivots import dart_pivots

__all__ = ["dart"]


@in_context
def dart(
    states: Array,
    keys: Array,
    text_states: Array,
    text_keys: Array,
    /,
    *,
    quota: int | None = None,
    budget: float | None = None,
    image_pivots: int = 4,
    text_pivots: int = 4,
    offset: int = 0,
) -> Array:
    """Keep visual tokens with large keys as pivots, and other visual tokens that do not duplicate a pivot.

    The published method reads the keys of the layer before the pruning layer, and the states that enter the pruning
    layer.

    Parameters
    ----------
    states, text_states : array of float, shape (N, E) and (T, E)
        States of the visual tokens and of the text tokens after them, each passed through the model's final norm.
    keys, text_keys : array of float, shape (N, D) and (T, D)
        Their keys with rotary embedding, the heads of a token concatenated.
    quota : int
        Number of tokens that each pivot adds, at least 0; see `dart_quota`. Give either `quota` or `budget`.
    budget : int or float
        Upper limit on the number of tokens, or on their share, as in `select_tokens`. It sets the quota.
    image_pivots, text_pivots : int
        Number of pivots among the visual tokens (1 to N), which are kept, and among the text tokens (0 to T).
    offset : int
        Position of the first visual token in the sequence. The official order of the pivots depends on it.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct. M is image_pivots + (image_pivots + text_pivots) * quota,
        or N if that is less.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range; if not exactly one of `quota` and `budget` is given; if the budget is less than `image_pivots`.

    Notes
    -----
    The pivots are the tokens whose keys have the largest L1 norm. One pivot after another takes, from the visual tokens
    that are left, the `quota` tokens with the smallest cosine to it. The order of the pivots is that in which CPython
    iterates over a set of their positions, as in the official code. Of equal norms or cosines, the lower index is
    taken. In half precision every operation is rounded, as in the official code.

    Deviation: if fewer tokens than the quota are left, all are taken; the official code raises.

    References
    ----------
    Wen et al.: Stop Looking for Important Tokens. EMNLP 2025, arXiv 2502.11494. Code: xqy1111111/DART at d6a5af6, a
    fork of ZichenWen1/DART.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> dart(x, x, x[:1], x[:1], quota=1, image_pivots=1, text_pivots=0)
    array([0, 2])
    """
    text = {"text_states": (text_states, "T E"), "text_keys": (text_keys, "T D")}
    sizes = check_arrays({"states": (states, "N E"), "keys": (keys, "N D"), **text})
    total = sizes["N"]
    turns, image = dart_pivots(keys, text_keys, image_pivots=image_pivots, text_pivots=text_pivots, offset=offset)
    check_exactly_one(quota=quota, budget=budget)
    if budget is not None:
        quota = _affordable(tokens_to_keep(budget, total), image_pivots, len(turns))
    quota = check_count("quota", quota, 0)
    xp = namespace(states)
    precision = Precision.of(states, text_states)
    rows = precision.enter(xp.concat([states, text_states]))
    norms = precision.norm(rows)
    units = precision.round(rows / xp.clip(norms, 1e-8, None)[:, None])
    left, chosen = remaining(image, total), [image]
    for pivot in turns:
        alike = precision.sum(precision.round(tokens_at(units, left) * units[pivot, :]), axis=1)
        picked = largest(-alike, quota)
        chosen.append(tokens_at(left, picked))
        left = tokens_at(left, remaining(picked, left.shape[0]))
    return in_sequence(xp.concat(chosen))


def _affordable(count: int, image_pivots: int, pivots: int) -> int:
    """Return the largest quota with which at most `count` tokens are kept.

    Raises
    ------
    ValueError
        If the image pivots alone are more than `count`.
    """
    if count < image_pivots:
        msg = f"`budget` is {count} tokens, expected at least the {image_pivots} of `image_pivots`"
        raise ValueError(msg)
    return (count - image_pivots) // pivots

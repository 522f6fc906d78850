"""DART: keep pivots, and for each pivot the visual tokens least like it."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count, check_exactly_one
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, remaining, tokens_at
from iwp_core.methods.dart_pivots import dart_pivots

__all__ = ["dart"]


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
    """Keep visual tokens with large keys as pivots, and others that are no duplicates of a pivot.

    Reads keys of the layer before the one where tokens are dropped, and the states entering that one.

    Parameters
    ----------
    states, text_states : array, shape (N, E) and (T, E)
        States of the visual tokens, and of the tokens after them, through the model's last norm.
    keys, text_keys : array, shape (N, D) and (T, D)
        Their keys with rotary positions, all heads of a token in a row.
    quota : int
        Tokens that each pivot adds; see `dart_quota`. Exactly one of `quota` and `budget` is given.
    budget : int or float
        At most so many tokens, or that share of them, as in `select_tokens`; sets the quota.
    image_pivots, text_pivots : int
        Pivots among the visual tokens, which are kept, and among the text tokens.
    offset : int
        Position of the first visual token in the sequence. The official order of the pivots depends on it.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending: image_pivots + (image_pivots + text_pivots) * quota, or all where fewer are left.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, a number is out of range, both or none of `quota` and `budget` are
        given, or the budget is below `image_pivots`.

    Notes
    -----
    Pivots are those of largest L1 norm of the key. Each in turn takes, of the visual tokens left, the `quota` of
    smallest cosine to it. Turns follow the iteration order of a set of positions in CPython, as in the official code.
    Ties: lower index first (pivots), first in the official list (the rest). Half-precision inputs are rounded after
    every operation. Deviation: where fewer tokens are left than the quota, all are taken; the official code raises.

    References
    ----------
    Wen et al.: Stop Looking for Important Tokens. EMNLP 2025, arXiv 2502.11494; xqy1111111/DART at d6a5af6, a fork of
    ZichenWen1/DART.

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
    """Return the largest quota that keeps at most `count` tokens.

    Raises
    ------
    ValueError
        If the image pivots alone are more.
    """
    if count < image_pivots:
        msg = f"`budget` is {count} tokens, expected at least the {image_pivots} of `image_pivots`"
        raise ValueError(msg)
    return (count - image_pivots) // pivots

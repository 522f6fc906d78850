"""Pivots of DART, and what each of them adds."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest

__all__ = ["dart_pivots", "dart_quota"]


def dart_pivots(
    keys: Array, text_keys: Array, /, *, image_pivots: int, text_pivots: int, offset: int = 0
) -> tuple[list[int], Array]:
    """Return the pivots of `dart`: rows of the visual and text tokens together in the order of their turns.

    Parameters
    ----------
    keys, text_keys : array, shape (N, D) and (T, D)
    image_pivots, text_pivots, offset : int
        As for `dart`.

    Returns
    -------
    turns : list of int
        0..N-1 are visual tokens, N..N+T-1 text tokens.
    image : array of int64, shape (image_pivots,)
        The visual ones, by falling norm.

    Raises
    ------
    TypeError
        As `dart`.
    ValueError
        As `dart`.

    Examples
    --------
    >>> import numpy as np
    >>> dart_pivots(np.asarray([[1.0], [3.0]]), np.asarray([[2.0]]), image_pivots=1, text_pivots=1)
    ([1, 2], array([1]))
    """
    check_arrays({"keys": (keys, "N D"), "text_keys": (text_keys, "T D")})
    total, after = keys.shape[0], text_keys.shape[0]
    image = _largest_keys(keys, check_count("image_pivots", image_pivots, 1, total))
    text = _largest_keys(text_keys, check_count("text_pivots", text_pivots, 0, after))
    positions = [int(i) + offset for i in image] + [int(i) + offset + total for i in text]
    return [position - offset for position in set(positions).copy()], image


def dart_quota(share: float, total: int, /, *, pivots: int) -> int:
    """Return the official number of tokens that each of all `pivots` adds: floor(share * total / pivots).

    Image pivots come on top, so that the tokens kept are not share * total.

    Parameters
    ----------
    share : float
        1 - r, share of the visual tokens to be kept.
    total : int
        N.
    pivots : int
        Image and text pivots together.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If a number is none.
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> dart_quota(0.222, 576, pivots=8)
    15
    """
    check_number("share", share, 0.0, 1.0)
    return int(total * share / check_count("pivots", pivots, 1))


def _largest_keys(keys: Array, count: int) -> Array:
    xp = namespace(keys)
    precision = Precision.of(keys)
    return largest(precision.sum(xp.abs(precision.enter(keys)), axis=1), count)

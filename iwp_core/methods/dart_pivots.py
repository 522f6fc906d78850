"""Pivots of DART, and how many tokens each of them adds."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest

__all__ = ["dart_pivots", "dart_quota"]


@in_context
def dart_pivots(
    keys: Array, text_keys: Array, /, *, image_pivots: int, text_pivots: int, offset: int = 0
) -> tuple[list[int], Array]:
    """Return the pivots of `dart` in the order in which they choose.

    Parameters
    ----------
    keys, text_keys : array of float, shape (N, D) and (T, D)
        Keys of the visual tokens and of the text tokens, as for `dart`.
    image_pivots, text_pivots, offset : int
        As for `dart`.

    Returns
    -------
    turns : list of int
        All pivots in their order: 0 to N - 1 are visual tokens, N to N + T - 1 text tokens.
    image : array of int64, shape (image_pivots,)
        The pivots among the visual tokens, the largest L1 norm of the key first.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number is not an integer.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if there are
        more pivots than tokens, or no image pivot.

    References
    ----------
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
    """Return how many tokens each pivot adds in the official code: floor(share * total / pivots).

    The image pivots are kept in addition, so the number of tokens kept is not share * total.

    Parameters
    ----------
    share : float
        Share of the visual tokens to be kept, 0 to 1: one minus the official reduction ratio.
    total : int
        Number of visual tokens N.
    pivots : int
        Number of image and text pivots together, at least 1.

    Returns
    -------
    int
        The `quota` of `dart`.

    Raises
    ------
    TypeError
        If `share` is not a real number, or `pivots` not an integer.
    ValueError
        If `share` or `pivots` is out of range.

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

"""The part of the attention that comes from rotary positions alone, which version 2 of SparseVLM divides out."""

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, device, namespace
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._context import in_context

__all__ = ["rotary_gravity"]


@in_context
def rotary_gravity(text: Array, visual: Array, /, *, width: int, base: float = 10_000.0) -> Array:
    """Return the scaled dot product of two vectors of ones under rotary embedding, for each pair of positions.

    Parameters
    ----------
    text : array of float, shape (T,)
        Positions of the text tokens.
    visual : array of float, shape (N,)
        Positions of the visual tokens.
    width : int
        Head width D, at least 2 and even.
    base : float
        Base of the rotary frequencies, at least 1.

    Returns
    -------
    array of float, shape (T, N)
        <rope(1, i), rope(1, j)> / sqrt(D) for positions i and j. It falls with their distance, and may be small or
        negative at long distances.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range.

    References
    ----------
    Version 2 of SparseVLM; see `sparsevlm`.

    Examples
    --------
    >>> import numpy as np
    >>> rotary_gravity(np.asarray([3.0]), np.asarray([3.0]), width=4)
    array([[2.]])
    """
    check_arrays({"text": (text, "T"), "visual": (visual, "N")})
    check_count("width", width, 2)
    check_number("base", base, 1.0, float("inf"))
    xp = namespace(text)
    places = xp.arange(0, width, 2, dtype=accumulation_dtype(text, visual), device=device(text))
    frequencies = 1.0 / base ** (places / width)
    rows, columns = (_turned(as_dtype(x, places.dtype), frequencies) for x in (text, visual))
    return rows @ xp.matrix_transpose(columns) / width**0.5


def _turned(positions: Array, frequencies: Array) -> Array:
    xp = namespace(positions)
    angles = positions[:, None] * frequencies[None, :]
    return xp.concat([xp.cos(angles) - xp.sin(angles), xp.cos(angles) + xp.sin(angles)], axis=1)

"""How much rotary positions alone let a text token attend to a visual one: SparseVLM 2 divides it out."""

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, device, namespace
from iwp_core.methods._checks import check_arrays, check_count, check_number

__all__ = ["rotary_gravity"]


def rotary_gravity(text: Array, visual: Array, /, *, width: int, base: float = 10_000.0) -> Array:
    """Return the scaled product of two vectors of ones under rotary positions.

    Parameters
    ----------
    text : array, shape (T,)
        Positions of the text tokens, as floating-point numbers.
    visual : array, shape (N,)
        Positions of the visual tokens.
    width : int
        D, width of a head, even.
    base : float
        Base of the rotary frequencies.

    Returns
    -------
    array, shape (T, N)
        <rope(1, i), rope(1, j)> / sqrt(D), which falls with the distance and can be small or negative far away.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, or a number is out of range.

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

"""Evenly spaced visual tokens: a baseline without chance."""

from iwp_core._arrays import Array, arange_indices
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays

__all__ = ["uniform"]


def uniform(features: Array, /, budget: float) -> Array:
    """Keep the token in the middle of each of M stretches of nearly equal length.

    Parameters
    ----------
    features : array, shape (N, E)
        Any array of the tokens: its first axis says how many there are, and the answer is on its device.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        floor((i + 1/2) N / M) for i = 0 .. M - 1.

    Raises
    ------
    TypeError
        If `features` is no floating-point array, or `budget` no real number.
    ValueError
        If `features` has another rank or is empty, or the budget is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> uniform(np.zeros((10, 1)), 3)
    array([1, 5, 8])
    """
    total = check_arrays({"features": (features, "N E")})["N"]
    count = tokens_to_keep(budget, total)
    return (2 * arange_indices(count, features) + 1) * total // (2 * count)

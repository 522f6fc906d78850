"""Evenly spaced visual tokens: a deterministic baseline."""

from iwp_core._arrays import Array, arange_indices
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays

__all__ = ["uniform"]


def uniform(features: Array, /, budget: float) -> Array:
    """Keep the middle token of each of M stretches of nearly equal length.

    Parameters
    ----------
    features : array of float, shape (N, E)
        Any array of the tokens. Only its number of rows and its device are used.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Indices floor((i + 1/2) N / M) for i = 0 to M - 1.

    Raises
    ------
    TypeError
        If `features` is not a floating-point array, or `budget` is not a real number.
    ValueError
        If `features` does not have two non-empty axes or is not finite, or `budget` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> uniform(np.zeros((10, 1)), 3)
    array([1, 5, 8])
    """
    total = check_arrays({"features": (features, "N E")})["N"]
    count = tokens_to_keep(budget, total)
    return (2 * arange_indices(count, features) + 1) * total // (2 * count)

"""Random choice of visual tokens: the baseline that every method has to beat."""

import random

from iwp_core._arrays import Array, device, index_dtype, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count

__all__ = ["random_tokens"]


def random_tokens(features: Array, /, budget: float, *, seed: int) -> Array:
    """Keep tokens drawn uniformly without replacement.

    Parameters
    ----------
    features : array of float, shape (N, E)
        Any array of the tokens. Only its number of rows and its device are used.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    seed : int
        At least 0. A seed draws the same tokens on every library and device. Report the mean of at least three seeds.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If `features` is not a floating-point array, or a number has the wrong type.
    ValueError
        If `features` does not have two non-empty axes or is not finite, or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> random_tokens(np.zeros((10, 1)), 3, seed=0)
    array([0, 6, 9])
    """
    total = check_arrays({"features": (features, "N E")})["N"]
    drawn = random.Random(check_count("seed", seed, 0)).sample(range(total), tokens_to_keep(budget, total))
    xp = namespace(features)
    return xp.asarray(sorted(drawn), dtype=index_dtype(xp, features), device=device(features))

"""How many tokens a budget stands for: the only place where a fraction is rounded."""

import math
from numbers import Integral, Real

__all__ = ["tokens_to_keep"]


def tokens_to_keep(budget: float, total: int) -> int:
    """Return the number of tokens M that a budget keeps out of N.

    Parameters
    ----------
    budget : int or float
        An int >= 1 is a count, and keeps everything where it exceeds `total`. A float in (0, 1] is a
        share: M = max(1, floor(budget * N + 0.5)).
    total : int
        Number of candidates N, at least 1.

    Returns
    -------
    int
        M, from 1 to `total`.

    Raises
    ------
    TypeError
        If `budget` is no real number; booleans are none.
    ValueError
        If `budget` is not positive, is NaN, or is a fraction above 1.

    Examples
    --------
    >>> tokens_to_keep(0.111, 7290), tokens_to_keep(64, 7290), tokens_to_keep(0.001, 10)
    (809, 64, 1)
    """
    check_budget(budget)
    if isinstance(budget, Integral):
        return min(int(budget), total)
    return min(total, max(1, math.floor(float(budget) * total + 0.5)))


def check_budget(budget: object) -> None:
    """Raise unless `budget` is a count >= 1 or a share in (0, 1].

    Raises
    ------
    TypeError
        If `budget` is no real number; booleans are none.
    ValueError
        If `budget` is not positive, is NaN, or is a fraction above 1.
    """
    allowed = "expected an int >= 1 (tokens to keep) or a float in (0, 1] (share to keep)"
    if isinstance(budget, bool) or not isinstance(budget, Real):
        msg = f"`budget` is {budget!r} of type {type(budget).__name__}, {allowed}"
        raise TypeError(msg)
    fits = int(budget) >= 1 if isinstance(budget, Integral) else 0.0 < float(budget) <= 1.0
    if not fits:
        msg = f"`budget` is {budget!r}, {allowed}"
        raise ValueError(msg)

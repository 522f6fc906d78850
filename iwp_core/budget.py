"""How many tokens a budget stands for: the only place where a fraction is rounded."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

__all__ = ["BOUNDS", "Tolerance", "check_budget", "tokens_to_keep"]

BOUNDS = ("output", "deletion")


@dataclass(frozen=True)
class Tolerance:
    """A budget that adapts to each sample: the fewest tokens that keep an error within a share.

    The strategy puts the tokens in order; the first M of that order are what it chooses if M are asked for. M is the
    least number, at least 1, with which the error of dropping all others is at most `share` of its measure.

    Parameters
    ----------
    share : float
        In (0, 1): the error allowed, as a share of what the bound says below.
    bound : {"output", "deletion"}
        - "output": how far dropping the tokens S can move an output of any head at any of the given queries. The bound
          is the largest, over heads and queries, of the sum over S of a_i (||v_i|| + r): a_i the softmax weight of the
          query on token i among all that it sees (`context` included), r the norm of the longest value among the
          head's candidates. `share` is of the same number for S = all candidates.
        - "deletion": the norm of the updates that are dropped, ``deletion_error(keys, values, kept)`` of every head:
          at most `share`, which is of the norm of all updates together.

    Raises
    ------
    TypeError
        If `share` is no real number.
    ValueError
        If `share` is not in (0, 1), or `bound` is unknown.

    Notes
    -----
    Proof of "output". Let o be an output before and p after S is dropped, and A the sum of a_i over S. Softmax gives
    the weights of S to the others in proportion, so o = (1 - A) p + sum over S of a_i v_i, and

        p - o = A p - sum over S of a_i v_i = sum over S of a_i (p - v_i).

    Hence ||p - o|| <= sum over S of a_i (||v_i|| + ||p||). Without `context` p is a mean of candidates' values, so that
    ||p|| <= r. With it the bound holds as long as ||p|| <= r: always, where no value outside of the candidates is
    longer than the longest of them. It reads `queries`, none averaged, with `magnitude_keys` (default: `keys`): it is
    about the outputs of a model if these carry the rotary embedding that its attention gives them.

    "deletion" is the error itself, not a bound of it. Updates may cancel each other, so that it can rise again with
    more tokens; the least M counts.

    Examples
    --------
    >>> import numpy as np
    >>> from iwp_core import TopK, select_tokens
    >>> keys, values = np.asarray([[3.0], [2.0], [0.0], [-3.0]]), np.ones((4, 1))
    >>> [select_tokens(keys, values, keys[0], Tolerance(share), strategy=TopK()).tolist() for share in (0.1, 0.01)]
    [[0], [0, 1]]
    """

    share: float
    bound: str = "output"

    def __post_init__(self) -> None:
        allowed = "expected a number in (0, 1): the error allowed, as a share"
        if isinstance(self.share, bool) or not isinstance(self.share, Real):
            msg = f"`share` is {self.share!r} of type {type(self.share).__name__}, {allowed}"
            raise TypeError(msg)
        if not 0.0 < float(self.share) < 1.0:
            msg = f"`share` is {self.share!r}, {allowed}"
            raise ValueError(msg)
        if self.bound not in BOUNDS:
            msg = f"`bound` is {self.bound!r}, expected one of {', '.join(map(repr, BOUNDS))}"
            raise ValueError(msg)


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
        If `budget` is no real number; booleans are none, nor is a `Tolerance`.
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
        If `budget` is no real number; booleans are none, nor is a `Tolerance`.
    ValueError
        If `budget` is not positive, is NaN, or is a fraction above 1.
    """
    allowed = "expected an int >= 1 (tokens to keep) or a float in (0, 1] (share to keep)"
    if isinstance(budget, Tolerance):
        msg = f"`budget` is {budget!r}, {allowed}: here a count has to be known before tokens are compared"
        raise TypeError(msg)
    if isinstance(budget, bool) or not isinstance(budget, Real):
        msg = f"`budget` is {budget!r} of type {type(budget).__name__}, {allowed}"
        raise TypeError(msg)
    fits = int(budget) >= 1 if isinstance(budget, Integral) else 0.0 < float(budget) <= 1.0
    if not fits:
        msg = f"`budget` is {budget!r}, {allowed}"
        raise ValueError(msg)

"""HoloV: share the budget among runs of tokens by how varied they are, then keep the most attended of each run."""

from itertools import pairwise

from iwp_core._arrays import Array, arange_indices, namespace, order_descending
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, mask_of
from iwp_core.methods.holov_scores import LEAST, run_score

__all__ = ["holov", "holov_order"]


def holov(features: Array, attention: Array, /, budget: float, *, patches: int = 16) -> Array:
    """Keep the most attended tokens of each run of tokens, more of them where the run is attended and varied.

    Reads features and class-token attention of the vision tower.

    Parameters
    ----------
    features : array, shape (N, E)
    attention : array, shape (N,)
        Attention to each token, mean over heads.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    patches : int
        Runs P that the list of tokens is cut into, 1 to N.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, or a number is out of range.

    Notes
    -----
    Ties: lower index first. Half-precision inputs are rounded after every operation, as the official code does.
    Deviation: where a run has fewer tokens than its part, the most attended of the others fill up M, not zeros.

    References
    ----------
    Zou et al.: Don't Just Chase "Highlighted Tokens" in MLLMs. NeurIPS 2025, arXiv 2510.02912; obananas/HoloV at
    1d2e65e.

    Examples
    --------
    >>> import numpy as np
    >>> holov(np.eye(4), np.asarray([0.4, 0.3, 0.1, 0.2]), 3, patches=2)
    array([0, 1, 3])
    """
    order = holov_order(features, attention, budget, patches=patches)
    xp = namespace(features)
    missing = tokens_to_keep(budget, features.shape[0]) - order.shape[0]
    if missing:
        rest = xp.where(mask_of(order, features.shape[0]), xp.full_like(attention, -xp.inf), attention)
        order = xp.concat([order, largest(rest, missing)])
    return in_sequence(order)


def holov_order(features: Array, attention: Array, /, budget: float, *, patches: int = 16) -> Array:
    """Return what the runs keep, run by run, by falling attention: fewer than M where a run has too few tokens.

    Parameters
    ----------
    features, attention, budget, patches : array, array, int or float, int

    Returns
    -------
    array of int64, shape (at most M,)

    Raises
    ------
    TypeError, ValueError
        As `holov`.
    """
    total = check_arrays({"features": (features, "N E"), "attention": (attention, "N")})["N"]
    check_count("patches", patches, 1, total)
    count = tokens_to_keep(budget, total)
    xp = namespace(features)
    precision = Precision.of(features, attention)
    rows, weights = precision.enter(features), precision.enter(attention)
    size, longer = divmod(total, patches)
    edges = [patch * size + min(patch, longer) for patch in range(patches + 1)]
    runs = [slice(start, stop) for start, stop in pairwise(edges)]
    scores = xp.stack([run_score(rows[run, :], weights[run], precision) for run in runs])
    shares = precision.round(scores / precision.round(xp.sum(scores) + LEAST))
    quotas = [int(quota) for quota in xp.floor(precision.round(shares * count))]
    order = [int(patch) for patch in order_descending(shares)]
    for place in range(count - sum(quotas)):
        quotas[order[place % patches]] += 1
    everything = arange_indices(total, features)
    kept = [
        everything[run][largest(weights[run], quota)] if quota < run.stop - run.start else everything[run]
        for run, quota in zip(runs, quotas, strict=True)
    ]
    return xp.concat(kept)

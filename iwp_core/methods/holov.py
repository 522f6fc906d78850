"""HoloV: divide the budget among runs of tokens, and keep the most attended tokens of each run."""

from itertools import pairwise

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, mask_of
from iwp_core.methods.holov_scores import run_quotas, run_score

__all__ = ["holov", "holov_order"]


@in_context
def holov(features: Array, attention: Array, /, budget: float, *, patches: int = 16) -> Array:
    """Keep the most attended tokens of each run of tokens. A run that is more attended and more varied keeps more.

    The published method reads the features and the attention of the class token in the vision tower.

    Parameters
    ----------
    features : array of float, shape (N, E)
        Features of the tokens.
    attention : array of float, shape (N,)
        Attention that each token receives, averaged over heads.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    patches : int
        Number P of runs into which the list of tokens is cut, 1 to N.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range.

    Notes
    -----
    The list of tokens, not the grid, is cut into P runs of floor(N / P) tokens; the first N mod P runs have one more. A
    run's score adds its mean attention and the variance of its tokens' cosines. The budget is divided in proportion to
    the scores, rounded down; the rest goes, one token each, to the runs of the largest score. Of equal scores, the
    lower index is taken. In half precision every operation is rounded, as in the official code.

    Deviations: a run may be given more than it has tokens. The official code then fills up with zeros, this function
    with the most attended of the other tokens. In float16, the cosines of a few tokens may vary so little that the
    scale of their variation overflows. The official code then divides infinities, this function keeps the scale.

    References
    ----------
    Zou et al.: Don't Just Chase "Highlighted Tokens" in MLLMs. NeurIPS 2025, arXiv 2510.02912. Code: obananas/HoloV at
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


@in_context
def holov_order(features: Array, attention: Array, /, budget: float, *, patches: int = 16) -> Array:
    """Return the tokens that the runs of `holov` keep by themselves.

    Parameters
    ----------
    features, attention, budget, patches : array, array, int or float, int
        As for `holov`.

    Returns
    -------
    array of int64, shape (at most M,)
        Indices, run by run: the most attended first, or in order if the whole run is kept. There are fewer than M if a
        run has too few tokens.

    Raises
    ------
    TypeError, ValueError
        As `holov`.

    Examples
    --------
    >>> import numpy as np
    >>> holov_order(np.eye(4), np.asarray([0.2, 0.3, 0.4, 0.1]), 2, patches=2)
    array([1, 2])
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
    everything, quotas = arange_indices(total, features), run_quotas(scores, count, precision)
    kept = [
        everything[run][largest(weights[run], quota)] if quota < run.stop - run.start else everything[run]
        for run, quota in zip(runs, quotas, strict=True)
    ]
    return xp.concat(kept)

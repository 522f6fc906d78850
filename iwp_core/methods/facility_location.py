"""Greedy facility location: choose the token that adds most to the coverage of all tokens."""

from collections.abc import Callable

from iwp_core._arrays import Array, arange_indices, locate, namespace, tiles
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, tokens_at

__all__ = ["greedy_coverage"]

BATCH = 16
"""Candidates that are brought up to date at first; each further round of a step takes twice as many."""


def greedy_coverage(
    similarity: Array, worth: Callable[[Array, Array], Array], count: int, *, precision: Precision
) -> Array:
    """Choose tokens that cover all tokens best, with their gains weighed, in the order of choice.

    Parameters
    ----------
    similarity : array, shape (N, N)
        S, symmetric. The coverage c_i of token i is the largest S_ij over the chosen j, at least 0. The gain of token j
        is sum_i max(0, S_ij - c_i).
    worth : callable
        Takes the gains (R,) and the indices (R,) of tokens, and returns their scores. A score must not fall if a gain
        rises.
    count : int
        Number of tokens M, at most N.
    precision : Precision
        Dtypes of the arithmetic.

    Returns
    -------
    array of int, shape (M,)
        Of equal scores, the lower index is taken.

    Notes
    -----
    Gains only fall as the coverage grows, so an old score is an upper bound. Only candidates whose bound reaches the
    best score are computed anew (lazy greedy). The result is that of the plain loop, which takes O(M N^2).
    """
    xp = namespace(similarity)
    total = similarity.shape[0]
    everything = arange_indices(total, similarity)
    covered = xp.zeros_like(similarity[0, :])

    def score(tokens: Array) -> Array:
        missing = precision.round(tokens_at(similarity, tokens) - covered[None, :])
        return worth(precision.sum(xp.maximum(missing, xp.zeros_like(missing)), axis=1), tokens)

    bounds = xp.concat([score(everything[tile]) for tile in tiles(total, 256)])
    nothing = xp.full_like(bounds, -xp.inf)
    fresh = available = everything >= 0
    chosen: list[Array] = []
    for _ in range(count):
        batch = BATCH
        while True:
            stale = xp.where(fresh, nothing, bounds)
            if bool(xp.max(stale) < xp.max(xp.where(fresh, bounds, nothing))) or bool(xp.all(fresh)):
                break
            tokens = in_sequence(largest(stale, batch))
            updated, slots = locate(tokens, everything)
            bounds = xp.where(updated & available, xp.take(score(tokens), slots), bounds)
            fresh, batch = fresh | updated, 2 * batch
        best = xp.argmax(xp.where(available, bounds, nothing))[None]
        chosen.append(best)
        covered = xp.maximum(covered, tokens_at(similarity, best)[0, :])
        available = available & (everything != best)
        bounds = xp.where(available, bounds, nothing)
        fresh = ~available
    return xp.concat(chosen)

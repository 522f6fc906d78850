"""Greedy facility location: the next token is the one that adds most to how well all tokens are covered."""

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
    """Choose tokens that cover all tokens best, weighed by what they are worth, in the order of choice.

    Parameters
    ----------
    similarity : array, shape (N, N)
        S, symmetric. Token i is covered by c_i, the largest S_ij over the chosen j and at least 0; token j gains
        sum_i max(0, S_ij - c_i).
    worth : callable
        Turns the gains (R,) of tokens (R,) into scores; a score must not fall when its gain rises.
    count : int
        M, at most N.
    precision : Precision
        Of the arithmetic.

    Returns
    -------
    array of int, shape (M,)
        Ties: lower index first.

    Notes
    -----
    Gains only fall as more is covered, so an old score is an upper bound, and only candidates whose bound reaches the
    best score need to be computed anew (lazy greedy). The answer is that of the plain loop, which is O(M N^2).
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

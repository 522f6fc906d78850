"""Greedy MAP inference in a determinantal point process (DPP), by incremental Cholesky factors."""

from iwp_core._arrays import Array, arange_indices, device, namespace
from iwp_core.methods._ranking import largest, remaining, tokens_at

__all__ = ["greedy_determinant"]

NOTHING = 1e-6
"""Share of a token's own kernel entry below which what the chosen leave of it is rounding, not volume."""

BLOCK = 32
"""Factors of one matrix: rows are added to the last one only, and no step has a new shape to compile."""


def greedy_determinant(similarity: Array, quality: Array, count: int, identical: Array | None = None) -> Array:
    """Choose tokens that greedily maximise the determinant of L_ij = q_i S_ij q_j, in the order of choice.

    Parameters
    ----------
    similarity : array, shape (N, N)
        S, positive semidefinite, in float32 or float64.
    quality : array, shape (N,)
        q >= 0, in the dtype of `similarity`.
    count : int
        Number of tokens M, at most N.
    identical : array of int, shape (N,), or None
        For each token, the first one that equals it; None if all differ.

    Returns
    -------
    array of int, shape (M,)
        Of equal determinants, the lower index is taken. Once the chosen tokens span all others, every larger
        determinant is 0; the rest is then chosen by quality.

    Notes
    -----
    O(M^2 N) time and O(M N) memory beside S.

    References
    ----------
    Chen, Zhang, Zhou: Fast Greedy MAP Inference for Determinantal Point Process. arXiv 1709.05135, algorithm 1.
    """
    xp = namespace(similarity)
    everything = arange_indices(quality.shape[0], similarity)
    own = quality * xp.linalg.diagonal(similarity) * quality
    left, available = own, own > 0
    rows = arange_indices(BLOCK, similarity)[:, None]
    empty = xp.zeros((BLOCK, quality.shape[0]), dtype=similarity.dtype, device=device(similarity))
    blocks: list[Array] = []
    chosen: list[Array] = []
    while len(chosen) < count and bool(xp.any(available)):
        best = xp.argmax(xp.where(available, left, xp.full_like(left, -xp.inf)))[None]
        row = tokens_at(similarity, best)[0, :] * quality * xp.take(quality, best)
        for seen in blocks:
            row = row - xp.take(seen, best, axis=1)[:, 0] @ seen
        if identical is not None:
            row = xp.take(row, identical)
        factor = row / xp.sqrt(xp.take(left, best))
        place = len(chosen) % BLOCK
        last = blocks.pop() if place else empty
        blocks.append(xp.where(rows == place, factor[None, :], last))
        chosen.append(best)
        left = left - factor * factor
        available = available & (everything != best) & (left > NOTHING * own)
    return _filled_up(chosen, quality, count)


def _filled_up(chosen: list[Array], quality: Array, count: int) -> Array:
    """Return the chosen tokens, followed by the best of the others, `count` in all."""
    xp = namespace(quality)
    if len(chosen) == count:
        return xp.concat(chosen)
    order = xp.concat(chosen) if chosen else arange_indices(0, quality)
    others = remaining(order, quality.shape[0])
    best = largest(xp.take(quality, others), count - len(chosen))
    return xp.concat([order, xp.take(others, best)])

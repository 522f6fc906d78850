"""Orders by score. On every library, the lower index comes first among equal scores."""

from iwp_core._arrays import Array, arange_indices, device, namespace, order_descending

__all__ = ["in_sequence", "largest", "mask_of", "placed", "ranks_descending", "remaining", "tokens_at"]


def largest(scores: Array, count: int) -> Array:
    """Return the indices of the `count` largest scores (N,), the largest first; all indices if there are fewer."""
    return order_descending(scores)[: min(count, scores.shape[0])]


def in_sequence(indices: Array) -> Array:
    """Return indices in ascending order."""
    return namespace(indices).sort(indices)


def ranks_descending(scores: Array) -> Array:
    """Return the rank of each entry in its row (..., N): 0 for the largest."""
    xp = namespace(scores)
    return xp.argsort(xp.argsort(-scores, axis=-1, stable=True), axis=-1, stable=True)


def mask_of(indices: Array, total: int) -> Array:
    """Return a mask (N,) that is True at the given indices (M,), which may be in any order."""
    xp = namespace(indices)
    if indices.shape[0] == 0:
        return xp.zeros((total,), dtype=xp.bool, device=device(indices))
    ascending = xp.sort(indices)
    everything = arange_indices(total, indices)
    slots = xp.clip(xp.searchsorted(ascending, everything), 0, ascending.shape[0] - 1)
    return xp.take(ascending, slots) == everything


def remaining(indices: Array, total: int) -> Array:
    """Return the indices from 0 to total - 1 that are not among the given distinct indices, ascending."""
    xp = namespace(indices)
    taken = mask_of(indices, total)
    return xp.argsort(xp.astype(taken, xp.int32), stable=True)[: total - indices.shape[0]]


def tokens_at(x: Array, indices: Array) -> Array:
    """Return the rows (R, ...) of an array (N, ...) at the given indices."""
    return namespace(x).take(x, indices, axis=0)


def placed(values: Array, positions: Array) -> Array:
    """Return an array (N,) with `values` (N,) at `positions`, which are a permutation of 0 to N - 1."""
    xp = namespace(values)
    return xp.take(values, xp.argsort(positions))

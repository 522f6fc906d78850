"""Which tokens are bit-identical, so that ties between them are exact.

Blank regions of a picture give identical tokens, and a tie must go to the lower position. A matrix product does
not promise that equal rows give equal results: its rounding depends on where in a block a row falls. So scores are
computed once for the first of a set of identical tokens and shared by the others.
"""

from functools import reduce

from iwp_core._arrays import (
    Array,
    arange_indices,
    as_dtype,
    index_dtype,
    namespace,
    scatter,
    take,
    tiles,
)
from iwp_core._plugins import overridable

__all__ = ["first_identical", "hash_rows"]

SPARSE = 8
"""The first hash reads one of so many coordinates of the first head; that tells nearly all tokens apart.

Tokens that share it and yet differ get a hash of all coordinates.
"""

ODD = 0x3C6EF373
"""A number without pattern, within 31 bits: multiples of it spread over all bits of an integer."""


def first_identical(*arrays: Array) -> Array | None:
    """Return for each token the position of the first token identical to it.

    Parameters
    ----------
    *arrays : array, shape (H, N, D)
        Tokens count as identical if they are equal in every array, head and coordinate. H and D may differ.

    Returns
    -------
    array of int, shape (N,), or None
        None if all tokens are distinct.

    Notes
    -----
    Exact: a hash only proposes, rows are compared before they count as equal. Costs a sort of N numbers, and a pass
    or two over the tokens that share the few coordinates which the first look reads. Should two tokens share a hash of
    all coordinates and yet differ, such tokens are sorted coordinate by coordinate: O(H D N log N) at worst.

    Examples
    --------
    >>> import numpy as np
    >>> first_identical(np.asarray([[[1.0], [2.0], [1.0]]]))
    array([0, 1, 0])
    """
    xp = namespace(*arrays)
    if not _has_ties(arrays[0][0, :, 0]):
        return None
    first = everyone = arange_indices(arrays[0].shape[1], arrays[0])
    left = _alike(arrays, everyone)
    for heads, stride in ((1, SPARSE), (None, 1)):
        if left.shape[0] == 0:
            break
        hashes = [hash_rows(array[:heads, :, ::stride], left) for array in arrays]
        hashed = reduce(lambda total, one: total * ODD + one, hashes)
        if not _has_ties(hashed):
            left = left[:0]
            break
        order = xp.argsort(hashed, stable=True)  # each run of equal hashes starts with its lowest position
        ranked, members = take(hashed, order), take(left, order)
        first, left = _join(first, arrays, members, ranked[1:] != ranked[:-1])
    if left.shape[0] > 0:
        members = _sorted_rows(arrays, left)
        first, _ = _join(first, arrays, members, ~_rows_equal(arrays, members[1:], members[:-1]))
    return None if xp.all(first == everyone) else first


def _join(first: Array, arrays: tuple[Array, ...], members: Array, differs: Array) -> tuple[Array, Array]:
    """Within each group of equal fingerprints, map tokens that truly equal the first one to it; return the unmatched.

    `members` are sorted by group. ``differs[i]`` says that ``members[i + 1]`` begins a new group. What is returned is
    `first` with the new mappings, and the positions that are still unmatched, ascending.
    """
    xp = namespace(first)
    opens = xp.concat([xp.ones_like(members[:1], dtype=xp.bool), differs])
    runs = xp.cumulative_sum(as_dtype(opens, members.dtype)) - 1
    leaders = take(members, take(xp.nonzero(opens)[0], runs))
    equal = _rows_equal(arrays, members, leaders)
    ascending = xp.argsort(members)
    leaders, equal = take(leaders, ascending), take(equal, ascending)
    members = take(members, ascending)
    return scatter(first, members, xp.where(equal, leaders, members)), take(members, xp.nonzero(~equal)[0])


def _alike(arrays: tuple[Array, ...], left: Array) -> Array:
    """Return those of ascending positions whose tokens are not told apart by one of their coordinates."""
    for array in arrays:
        fewer = _repeated(array[0, :, 0], left)
        if fewer.shape[0] in (0, left.shape[0]):  # no more can be told apart, or not that way
            return fewer
        left = fewer
    return left


@overridable
def hash_rows(array: Array, positions: Array) -> Array:
    """Return an integer for each token at `positions` of an array (H, N, D): equal ones for equal tokens.

    Sums of integers are exact in any order, which sums of floating-point numbers are not. A coordinate enters as it is
    and by its fourth root, so that large ones count to their last bit and small ones count at all.
    """
    xp = namespace(array)
    integers = index_dtype(xp, array)
    bits = xp.iinfo(integers).bits
    dtype = xp.float64 if bits == 64 else xp.float32  # noqa: PLR2004 - a library has both or none
    heads, _, width = array.shape
    count = arange_indices(2 * heads * width, array)
    factors = xp.reshape((count * (count + ODD)) * ODD + count, (2, heads, 1, width))
    extent, full = as_dtype(_extent(array), dtype), 2.0 ** (bits - 2)
    parts = []
    for tile in tiles(positions.shape[0]):
        share = as_dtype(take(array, positions[tile], axis=1), dtype) / extent
        root = xp.sqrt(xp.sqrt(xp.abs(share)))
        mixed = as_dtype(share * full, integers) * factors[0, ...] + as_dtype(root * full, integers) * factors[1, ...]
        parts.append(xp.sum(mixed, axis=(0, 2), dtype=integers))
    return xp.concat(parts)


def _extent(x: Array) -> Array:
    """Return the largest absolute entry of an array, or 1 if that is 0."""
    xp = namespace(x)
    extent = xp.maximum(xp.max(x), -xp.min(x))
    return xp.where(extent > 0, extent, xp.ones_like(extent))


def _has_ties(values: Array) -> bool:
    """Return whether two entries of a vector are equal."""
    xp = namespace(values)
    ranked = xp.sort(values)
    return bool(xp.any(ranked[1:] == ranked[:-1]))


def _repeated(column: Array, positions: Array) -> Array:
    """Return those of ascending `positions` whose entry of a vector another one has too."""
    xp = namespace(column)
    values = column if positions.shape[0] == column.shape[0] else take(column, positions)
    if not _has_ties(values):
        return positions[:0]
    order = xp.argsort(values)
    ranked = take(values, order)
    same = ranked[1:] == ranked[:-1]
    edge = xp.zeros_like(values[:1], dtype=xp.bool)
    twice = xp.concat([same, edge]) | xp.concat([edge, same])
    return xp.sort(take(positions, take(order, xp.nonzero(twice)[0])))


def _sorted_rows(arrays: tuple[Array, ...], positions: Array) -> Array:
    """Return ascending `positions` in the lexicographic order of their tokens; equal tokens stay as they come."""
    xp = namespace(*arrays)
    for array in arrays:
        for head in range(array.shape[0]):
            rows = take(array[head, :, :], positions, axis=0)
            order = arange_indices(positions.shape[0], positions)
            for column in range(array.shape[-1]):
                order = take(order, xp.argsort(take(rows[:, column], order), stable=True))
            positions = take(positions, order)
    return positions


def _rows_equal(arrays: tuple[Array, ...], left: Array, right: Array) -> Array:
    """Return whether the tokens `left` equal the tokens `right` in every array."""
    xp = namespace(*arrays)
    equal = left == right
    doubtful = xp.nonzero(~equal)[0]
    parts = []
    for tile in tiles(doubtful.shape[0]):
        some, others = take(left, doubtful[tile]), take(right, doubtful[tile])
        # One axis after the other: over both at once torch and NumPy take twice as long.
        rows = [xp.all(xp.all(take(a, some, axis=1) == take(a, others, axis=1), axis=2), axis=0) for a in arrays]
        parts.append(reduce(xp.logical_and, rows))
    return scatter(equal, doubtful, xp.concat(parts)) if parts else equal

"""Which tokens are bit-identical, so that ties between them are exact.

Blank regions of a picture give identical tokens, and a tie must go to the lower position. A matrix product does
not promise that equal rows give equal results: its rounding depends on where in a block a row falls. So scores are
computed once for the first of a set of identical tokens and shared by the others.
"""

from itertools import product

from iwp_core._arrays import (
    Array,
    accumulation_dtype,
    arange_indices,
    as_dtype,
    namespace,
    order_descending,
    scatter,
    take_tokens,
)

__all__ = ["first_identical"]

PROBES = 2
"""Coordinates of each array that the first look reads; tokens that differ there are told apart at once."""

GOLDEN = 0.6180339887498949


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
    Exact: a fingerprint only proposes, rows are compared before they count as equal. Costs one sort of N numbers if
    all tokens are distinct.

    Examples
    --------
    >>> import numpy as np
    >>> first_identical(np.asarray([[[1.0], [2.0], [1.0]]]))
    array([0, 1, 0])
    """
    xp = namespace(*arrays)
    probe = _probe(arrays)
    everyone = arange_indices(probe.shape[0], probe)
    first = everyone
    left = _repeated(probe)
    if left.shape[0] == 0:
        return None
    first, left = _join(first, arrays, left, xp.take(probe, left))
    while left.shape[0] > 1:
        first, left = _join(first, arrays, left, _fingerprint(tuple(take_tokens(array, left) for array in arrays)))
    return None if xp.all(first == everyone) else first


def _join(first: Array, arrays: tuple[Array, ...], positions: Array, keys: Array) -> tuple[Array, Array]:
    """Give the tokens at ascending `positions` that equal the first of their key to it; return the others too."""
    xp = namespace(first)
    order = order_descending(keys)  # stable: each run of equal keys starts with its lowest position
    leaders = xp.take(positions, xp.take(order, _run_starts(xp.take(keys, order))))
    members = xp.take(positions, order)
    equal = _rows_equal(arrays, members, leaders)
    joined, others = xp.nonzero(equal)[0], xp.nonzero(~equal)[0]
    members, leaders, others = xp.take(members, joined), xp.take(leaders, joined), xp.take(members, others)
    ascending = xp.argsort(members)
    first = scatter(first, xp.take(members, ascending), xp.take(leaders, ascending))
    return first, xp.sort(others)


def _probe(arrays: tuple[Array, ...]) -> Array:
    """Mix a few coordinates of each token, elementwise only, so that identical tokens get identical numbers."""
    xp = namespace(*arrays)
    dtype = accumulation_dtype(*arrays)
    mixed = xp.zeros_like(arrays[0][0, :, 0], dtype=dtype)
    for array in arrays:
        heads, _, width = array.shape
        for probe in range(PROBES):
            column = array[probe % heads, :, (probe * width) // PROBES]
            mixed = mixed * GOLDEN + _unit_range(as_dtype(column, dtype))
    return mixed


def _fingerprint(arrays: tuple[Array, ...]) -> Array:
    """Weigh and add up all coordinates of each token one after the other: in an order that no library changes."""
    xp = namespace(*arrays)
    dtype = accumulation_dtype(*arrays)
    mixed = xp.zeros_like(arrays[0][0, :, 0], dtype=dtype)
    step = 0
    for array in arrays:
        scaled = _unit_range(as_dtype(array, dtype))
        for head, column in product(range(array.shape[0]), range(array.shape[-1])):
            step += 1
            mixed = mixed + scaled[head, :, column] * (0.5 + step * GOLDEN % 1.0)
    return mixed


def _unit_range(x: Array) -> Array:
    """Return an array divided by its largest absolute entry, so that mixing cannot overflow."""
    xp = namespace(x)
    extent = xp.max(xp.abs(x))
    return x / xp.where(extent > 0, extent, xp.ones_like(extent))


def _repeated(values: Array) -> Array:
    """Return, ascending, the positions whose value occurs at another position too."""
    xp = namespace(values)
    if values.shape[0] < 2:  # noqa: PLR2004 - one token has no twin
        return arange_indices(0, values)
    order = order_descending(values)
    ranked = xp.take(values, order)
    same = ranked[1:] == ranked[:-1]
    edge = xp.zeros_like(same[:1])
    with_next, with_previous = xp.concat([same, edge]), xp.concat([edge, same])
    return xp.sort(xp.take(order, xp.nonzero(with_next | with_previous)[0]))


def _run_starts(ranked: Array) -> Array:
    """Return for each entry of a sorted vector the position where its run of equal values starts."""
    xp = namespace(ranked)
    opens = xp.concat([xp.ones_like(ranked[:1], dtype=xp.bool), ranked[1:] != ranked[:-1]])
    run = xp.cumulative_sum(as_dtype(opens, arange_indices(0, ranked).dtype)) - 1
    return xp.take(xp.nonzero(opens)[0], run)


def _rows_equal(arrays: tuple[Array, ...], left: Array, right: Array) -> Array:
    """Return whether the tokens `left` equal the tokens `right` in every array."""
    xp = namespace(*arrays)
    equal = xp.ones_like(left, dtype=xp.bool)
    for array in arrays:
        for head in range(array.shape[0]):
            rows, others = xp.take(array[head, :, :], left, axis=0), xp.take(array[head, :, :], right, axis=0)
            equal = equal & xp.all(rows == others, axis=-1)
    return equal

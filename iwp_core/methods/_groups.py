"""Sums over groups of tokens, without the scattered additions that the Array API lacks."""

from iwp_core._arrays import Array, arange_indices, namespace, tiles

__all__ = ["gathered", "group_sizes", "group_sums"]

GROUPS = 64
"""Groups summed by one matrix product."""


def group_sums(x: Array, assignment: Array, count: int, *, rows: Array | None = None) -> Array:
    """Return the sum of the rows of each group.

    Parameters
    ----------
    x : array, shape (N, E)
    assignment : array of int, shape (N,)
        Group of each row; a negative one is in none.
    count : int
        Number of groups M.
    rows : array of int, shape (R,), optional
        The rows that are summed, where they are not all; `assignment` (R,) is then theirs.

    Returns
    -------
    array, shape (M, E)

    Notes
    -----
    Rows are sorted by group, so that few groups meet few rows: O(N E), and no more memory than for the rows of a tile.
    """
    xp = namespace(x)
    order = xp.argsort(assignment, stable=True)
    ordered = xp.take(assignment, order)
    edges = xp.searchsorted(ordered, arange_indices(count + 1, assignment))
    sums = []
    for tile in tiles(count, GROUPS):
        own = slice(int(edges[tile.start]), int(edges[tile.stop]))
        groups = arange_indices(count, assignment)[tile]
        member = groups[:, None] == ordered[own][None, :]
        found = order[own] if rows is None else xp.take(rows, order[own])
        sums.append(xp.astype(member, x.dtype) @ xp.take(x, found, axis=0))
    return xp.concat(sums)


def group_sizes(sizes: Array, assignment: Array, count: int) -> Array:
    """Return the sum (M,) of the sizes (N,) of each group."""
    return group_sums(sizes[:, None], assignment, count)[:, 0]


def gathered(x: Array, kept: Array, moved: Array, into: Array) -> Array:
    """Return the rows of x (N, E) that are kept, with others added to the last of them.

    Parameters
    ----------
    x : array, shape (N, E)
    kept : array of int, shape (M,)
        Rows that stay; the last floor(N / 2) of them can be added to.
    moved, into : array of int, shape (R,)
        Rows that are added, and to which of the last floor(N / 2).

    Returns
    -------
    array, shape (M, E)
    """
    xp = namespace(x)
    targets = x.shape[0] // 2
    added = xp.take(x, kept[-targets:], axis=0) + group_sums(x, into, targets, rows=moved)
    return added if kept.shape[0] == targets else xp.concat([xp.take(x, kept[:-targets], axis=0), added])

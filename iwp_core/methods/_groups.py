"""Sums over groups of tokens. The Array API has no scattered addition, so matrix products are used."""

from iwp_core._arrays import Array, arange_indices, namespace, tiles

__all__ = ["gathered", "group_sizes", "group_sums"]

GROUPS = 64
"""Groups summed by one matrix product."""


def group_sums(x: Array, assignment: Array, count: int, *, rows: Array | None = None) -> Array:
    """Return the sum of the rows of each group.

    Parameters
    ----------
    x : array, shape (N, E)
        Rows.
    assignment : array of int, shape (N,)
        Group of each row; negative for rows in no group.
    count : int
        Number of groups M.
    rows : array of int, shape (R,), optional
        Indices of the rows that are summed. `assignment`, shape (R,), then has their groups. Default: all rows.

    Returns
    -------
    array, shape (M, E)
        Sums.

    Notes
    -----
    Rows are sorted by group, so that a product of few groups meets few rows: O(N E) time, and memory for the rows of
    one tile.
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
    """Return for each group the sum (M,) of the sizes (N,) of its tokens."""
    return group_sums(sizes[:, None], assignment, count)[:, 0]


def gathered(x: Array, kept: Array, moved: Array, into: Array) -> Array:
    """Return the kept rows of x (N, E), with other rows added to some of them.

    Parameters
    ----------
    x : array, shape (N, E)
        Rows.
    kept : array of int, shape (M,)
        Indices of the rows that stay. Rows can be added to the last floor(N / 2) of these.
    moved, into : array of int, shape (R,)
        Indices of the rows that are added, and for each the number of the row, among these last, that it is added to.

    Returns
    -------
    array, shape (M, E)
        Rows with sums.
    """
    xp = namespace(x)
    targets = x.shape[0] // 2
    added = xp.take(x, kept[-targets:], axis=0) + group_sums(x, into, targets, rows=moved)
    return added if kept.shape[0] == targets else xp.concat([xp.take(x, kept[:-targets], axis=0), added])

"""Sums over groups of tokens, without the scattered additions that the Array API lacks."""

from iwp_core._arrays import Array, arange_indices, namespace, tiles

__all__ = ["group_sizes", "group_sums"]

GROUPS = 64
"""Groups summed by one matrix product."""


def group_sums(x: Array, assignment: Array, count: int) -> Array:
    """Return the sum of the rows of each group.

    Parameters
    ----------
    x : array, shape (N, E)
    assignment : array of int, shape (N,)
        Group of each row; a negative one is in none.
    count : int
        Number of groups M.

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
        rows = slice(int(edges[tile.start]), int(edges[tile.stop]))
        groups = arange_indices(count, assignment)[tile]
        member = groups[:, None] == ordered[rows][None, :]
        sums.append(xp.astype(member, x.dtype) @ xp.take(x, order[rows], axis=0))
    return xp.concat(sums)


def group_sizes(sizes: Array, assignment: Array, count: int) -> Array:
    """Return the sum (M,) of the sizes (N,) of each group."""
    return group_sums(sizes[:, None], assignment, count)[:, 0]

"""Density peaks clustering (DPC): centres are dense tokens that are far from denser tokens."""

from iwp_core._arrays import Array, arange_indices, namespace, order_descending
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest

__all__ = ["density_peaks", "neighbour_density", "spread_peaks"]


def density_peaks(distances: Array, density: Array, count: int, *, precision: Precision) -> tuple[Array, Array]:
    """Cluster around the tokens with the largest product of density and distance to the nearest denser token.

    Parameters
    ----------
    distances : array, shape (N, N)
        Distances between tokens.
    density : array, shape (N,)
        Density of each token.
    count : int
        Number of centres M, at most N.
    precision : Precision
        Dtypes of the arithmetic.

    Returns
    -------
    centres : array of int, shape (M,)
        The largest product first. For the densest token, the largest of all distances counts.
    assignment : array of int, shape (N,)
        For each token the number of its nearest centre, the first of equal ones; for a centre its own number.

    References
    ----------
    Rodriguez, Laio: Clustering by fast search and find of density peaks. Science 344 (2014). With k nearest neighbours
    for the density: Du, Ding, Jia, Knowledge-Based Systems 99 (2016).
    """
    xp = namespace(distances)
    denser = density[None, :] > density[:, None]
    farthest = xp.broadcast_to(xp.max(distances), distances.shape)
    isolation = xp.min(xp.where(denser, distances, farthest), axis=1)
    centres = largest(precision.round(isolation * density), count)
    assignment = xp.argmin(xp.take(distances, centres, axis=0), axis=0)
    for number in range(count):
        own = arange_indices(distances.shape[0], distances) == centres[number]
        assignment = xp.where(own, xp.full_like(assignment, number), assignment)
    return centres, assignment


def neighbour_density(distances: Array, width: float, *, precision: Precision) -> Array:
    """Return the density (N,) of tokens from their distances (N, N): the sum of exp(-(distance / width)^2)."""
    scaled = precision.round(distances / width)
    return precision.sum(precision.round(namespace(scaled).exp(-precision.round(scaled * scaled))), axis=1)


def spread_peaks(distances: Array, density: Array, cutoff: float) -> Array:
    """Return the centres of distance-bounded density peaks: no two of them are within the cutoff.

    Parameters
    ----------
    distances : array, shape (N, N)
        Distances between tokens.
    density : array, shape (N,)
        Density of each token. Of equal densities, the lower index counts as the denser.
    cutoff : float
        A token becomes a centre if and only if no denser centre is at this distance or nearer.

    Returns
    -------
    array of int, shape (M,)
        Indices of the centres, ascending.

    Notes
    -----
    Works in rounds on a pool of tokens. A token that is denser than all others of the pool within its cutoff becomes a
    centre, and tokens within the cutoff of a new centre leave the pool. The result is that of one pass in the order of
    decreasing density, with few passes over the array.
    """
    xp = namespace(distances)
    total = distances.shape[0]
    order = order_descending(density)
    near = xp.take(xp.take(distances <= cutoff, order, axis=0), order, axis=1)
    places = arange_indices(total, distances)
    pool, centre = places >= 0, places < 0
    while bool(xp.any(pool)):
        rivals = near & pool[None, :] & (places[None, :] < places[:, None])
        new = pool & ~xp.any(rivals, axis=1)
        centre = centre | new
        pool = pool & ~xp.any(near & new[None, :], axis=1)  # a centre is near itself
    slots = xp.argsort(xp.astype(~centre, xp.int32), stable=True)[: int(xp.sum(xp.astype(centre, xp.int32)))]
    return xp.sort(xp.take(order, slots))

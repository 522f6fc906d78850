"""Recycling of SparseVLM version 1: the best of the dropped tokens come back as the means of a few clusters."""

from iwp_core._arrays import Array, namespace, tiles
from iwp_core.methods._checks import check_arrays, check_count, check_indices
from iwp_core.methods._groups import group_sizes, group_sums
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest, placed, remaining, tokens_at
from iwp_core.methods.density_peaks import density_peaks
from iwp_core.methods.sparsevlm_counts import clusters_of, recycled_of

__all__ = ["sparsevlm_recycle"]

LEAST = 1e-6
"""Added to the size of a cluster."""

BLOCK = 1 << 22
"""Numbers that the differences of a block of token pairs hold."""


def sparsevlm_recycle(
    hidden: Array, scores: Array, kept: Array, /, *, clusters: int | None = None, noise: Array | None = None
) -> MergedTokens:
    """Merge the best of the dropped tokens by density peaks clustering.

    Parameters
    ----------
    hidden : array of float, shape (N, E)
        States of the visual tokens after the layer.
    scores : array of float, shape (N,)
        See `sparsevlm_scores`.
    kept : array of int, shape (M,)
        Indices of the kept tokens, ascending, with M < N.
    clusters : int, optional
        Number of clusters, from 1 to the number of recycled tokens; see `sparsevlm_counts`. Default: the official
        number.
    noise : array of float, shape (int(0.3 (N - M)) + 1,), optional
        Added to the densities of the recycled tokens, in descending order of their scores. The official code draws 1e-6
        U(0, 1) at each call. By default nothing is added, so that the result is deterministic.

    Returns
    -------
    MergedTokens
        One row for each cluster, in the place of its centre. The centre with the largest product of density and
        distance comes first. Kept tokens and tokens that are not recycled have the assignment -1.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if `kept` is not an integer array, or
        `clusters` not an integer.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if `kept` or
        `clusters` is out of range; if no token is dropped.

    Notes
    -----
    Of the N - M dropped tokens, the int(0.3 (N - M)) + 1 with the largest scores are recycled. Their densities come
    from the k nearest neighbours, with k the number of clusters, on Euclidean distances divided by sqrt(E). A row is
    the sum of its tokens divided by their number plus 1e-6. Of equal scores, the lower index is taken.

    References
    ----------
    As `sparsevlm`.

    Examples
    --------
    >>> import numpy as np
    >>> sparsevlm_recycle(np.asarray([[1.0], [2.0]]), np.asarray([0.9, 0.1]), np.asarray([0])).kept
    array([1])
    """
    total = check_arrays({"hidden": (hidden, "N E"), "scores": (scores, "N")})["N"]
    check_indices("kept", kept, total, ("hidden", hidden))
    if kept.shape[0] == total:
        msg = f"`kept` has all {total} tokens, expected at least one to be dropped"
        raise ValueError(msg)
    xp = namespace(hidden)
    precision = Precision.of(hidden)
    dropped = remaining(kept, total)
    recycled = tokens_at(dropped, largest(tokens_at(scores, dropped), recycled_of(dropped.shape[0])))
    count = clusters_of(dropped.shape[0]) if clusters is None else clusters
    check_count("clusters", count, 1, recycled.shape[0])
    states = precision.enter(tokens_at(hidden, recycled))
    distances = _distances(states, precision)
    nearest = xp.sort(distances, axis=1)[:, :count]
    density = precision.round(xp.exp(-precision.mean(precision.round(nearest * nearest), axis=1)))
    if noise is not None:
        check_arrays({"density": (density, "tokens"), "noise": (precision.enter(noise), "tokens")})
        density = precision.round(density + precision.enter(noise))
    centres, cluster = density_peaks(distances, density, count, precision=precision)
    sizes = group_sizes(xp.ones_like(states[:, 0]), cluster, count)
    weights = precision.round(1 / precision.round(sizes + LEAST))
    tokens = group_sums(precision.round(states * xp.take(weights, cluster)[:, None]), cluster, count)
    rest = remaining(recycled, total)
    labels = xp.concat([cluster, xp.full_like(rest, -1)])
    return MergedTokens(
        kept=tokens_at(recycled, centres),
        tokens=precision.leave(tokens),
        sizes=precision.leave(sizes),
        assignment=placed(labels, xp.concat([recycled, rest])),
    )


def _distances(states: Array, precision: Precision) -> Array:
    """Return the Euclidean distances divided by sqrt(E). They are taken from differences, which do not cancel."""
    total, width = states.shape
    blocks = [
        precision.norm(precision.round(states[tile, None, :] - states[None, :, :]))
        for tile in tiles(total, max(1, BLOCK // (total * width)))
    ]
    return precision.round(namespace(states).concat(blocks) / width**0.5)

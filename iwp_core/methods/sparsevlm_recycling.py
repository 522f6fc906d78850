"""Recycling of SparseVLM 1: the best of the dropped tokens come back as a few means of clusters."""

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
    hidden : array, shape (N, E)
        States of the visual tokens after the layer.
    scores : array, shape (N,)
        `sparsevlm_scores`.
    kept : array of int, shape (M,)
        Kept indices, ascending; at least one token is dropped.
    clusters : int, optional
        Instead of the official number; at most the tokens that are recycled. See `sparsevlm_counts`.
    noise : array, shape (int(0.3 (N - M)) + 1,)
        Added to the densities, in the order of falling scores. The official code draws 1e-6 U(0, 1) at every call;
        default none, so that the result is determined.

    Returns
    -------
    MergedTokens
        A row a cluster, in the order of the centres' product of density and distance, to follow the kept tokens. A row
        stands in its centre's place; kept tokens and those not recycled have the assignment -1.

    Raises
    ------
    TypeError
        If an argument is no floating-point array (`kept`: no integer array), or `clusters` no integer.
    ValueError
        If shapes do not fit, data is not finite, indices or `clusters` are out of range, or nothing is dropped.

    Notes
    -----
    Density peaks with k nearest neighbours, k = number of clusters, on Euclidean distances over sqrt(E). A row is the
    sum of its tokens over (their number + 1e-6). Ties: lower index first.

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
    """Return the Euclidean distances over sqrt(E), from differences: they do not cancel as a matrix product would."""
    total, width = states.shape
    blocks = [
        precision.norm(precision.round(states[tile, None, :] - states[None, :, :]))
        for tile in tiles(total, max(1, BLOCK // (total * width)))
    ]
    return precision.round(namespace(states).concat(blocks) / width**0.5)

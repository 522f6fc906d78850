"""PACT: drop unimportant visual tokens, cluster the others by density, and merge each cluster."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._cosine import cosine_distances
from iwp_core.methods._groups import group_sizes, group_sums
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, placed, remaining, tokens_at
from iwp_core.methods._ties import tied
from iwp_core.methods.density_peaks import neighbour_density, spread_peaks

__all__ = ["pact"]

RECOVERY, WIDTH = 1.5, 2.0
"""Cutoffs within which a pruned token joins its centre; distance at which a neighbour counts 1/e for the density."""


def pact(
    hidden: Array,
    keys: Array,
    importance: Array,
    /,
    *,
    cutoff: float = 0.21,
    share: float = 0.55,
    budget: float | None = None,
) -> MergedTokens:
    """Keep one token for each cluster of visual tokens: the mean of the cluster's states, with the cluster's size.

    The published method reads the states that enter layer 4, and the queries and keys of that layer.

    Parameters
    ----------
    hidden : array of float, shape (N, E)
        States of the visual tokens.
    keys : array of float, shape (N, D)
        Their keys with rotary embedding, the key/value heads of a token concatenated.
    importance : array of float, shape (N,)
        See `pact_importance`.
    cutoff : float
        Cosine distance d_c, 0 to 2. No two centres are at this distance or nearer.
    share : float
        Share of the tokens that is clustered, 0 to 1: the max(1, int(share * N)) most important.
    budget : int or float
        If given, `cutoff` is raised until at most this number or share of the tokens remains, as in `select_tokens`.

    Returns
    -------
    MergedTokens
        One row for each centre, ascending. `sizes` are meant for proportional attention. A token outside of `share`
        joins the nearest centre within 1.5 cutoffs; without such a centre it is dropped.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, a value is not finite, or a number is out of range.

    Notes
    -----
    Of equal scores, the lower index is taken. In half precision every operation is rounded, as in the official code.
    The states of a cluster are summed in float32 and rounded once.

    Deviations: equal densities are ranked by index, where the official order is arbitrary; ranks do not collide in half
    precision; if int(share * N) is 0, one token is clustered, where the official code keeps N - 1 tokens.

    References
    ----------
    Dhouib et al.: PACT. CVPR 2025, arXiv 2504.08966. Code: orailix/PACT at cf9a0c9.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> merged = pact(x, x, np.ones(3), share=1.0)
    >>> merged.kept, merged.sizes
    (array([1, 2]), array([2., 1.]))
    """
    total = check_arrays({"hidden": (hidden, "N E"), "keys": (keys, "N D"), "importance": (importance, "N")})["N"]
    check_number("cutoff", cutoff, 0.0, 2.0)
    check_number("share", share, 0.0, 1.0)
    xp = namespace(hidden)
    precision = Precision.of(hidden, keys)
    survivors = in_sequence(largest(importance, max(1, int(share * total))))
    pruned = remaining(survivors, total)
    units = precision.units(precision.enter(keys))
    alive = tokens_at(units, survivors)
    distances = cosine_distances(alive, precision)
    density = neighbour_density(distances, WIDTH, precision=precision)
    centres, cutoff = _centres(distances, density, cutoff, total if budget is None else tokens_to_keep(budget, total))
    apart = 1 - tied(precision.round(tokens_at(units, pruned) @ xp.matrix_transpose(alive)), alive[None, :, :])
    to_centres = xp.take(xp.concat([distances, precision.round(apart)]), centres, axis=1)
    nearest = xp.argmin(to_centres, axis=1)
    label = xp.where(xp.min(to_centres, axis=1) <= RECOVERY * cutoff, nearest, xp.full_like(nearest, -1))
    assignment = placed(label, xp.concat([survivors, pruned]))
    counts = group_sizes(xp.ones_like(precision.enter(hidden)[:, 0]), assignment, centres.shape[0])
    sums = precision.round(group_sums(precision.enter(hidden), assignment, centres.shape[0]))
    return MergedTokens(
        kept=xp.take(survivors, centres),
        tokens=precision.leave(precision.round(sums / precision.round(counts)[:, None])),
        sizes=counts,
        assignment=assignment,
    )


def _centres(distances: Array, density: Array, cutoff: float, most: int) -> tuple[Array, float]:
    """Return the centres and the cutoff. If there are more than `most` centres, the cutoff is raised by bisection."""
    centres = spread_peaks(distances, density, cutoff)
    if centres.shape[0] <= most:
        return centres, cutoff
    low, high = cutoff, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        found = spread_peaks(distances, density, middle)
        low, high = (low, middle) if found.shape[0] <= most else (middle, high)
    return spread_peaks(distances, density, high), high

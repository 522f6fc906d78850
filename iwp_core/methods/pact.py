"""PACT: prune unimportant visual tokens, cluster the others by density, and merge."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._cosine import cosine_distances
from iwp_core.methods._groups import group_sizes, group_sums
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, placed, remaining, tokens_at
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
    """Keep one token for each cluster of visual tokens: the mean of the cluster, weighed by its size.

    Reads the states entering one layer of the language model (as published layer 4) and what that layer projects.

    Parameters
    ----------
    hidden : array, shape (N, E)
        States of the visual tokens.
    keys : array, shape (N, D)
        Their keys with rotary positions, all key/value heads of a token in a row.
    importance : array, shape (N,)
        See `pact_importance`.
    cutoff : float
        d_c, cosine distance (0 to 2) within which no two centres lie.
    share : float
        Share of the tokens that is clustered, the most important: max(1, int(share * N)).
    budget : int or float
        If given, the cutoff is raised until at most so many tokens, or that share of them, remain.

    Returns
    -------
    MergedTokens
        One row a centre, ascending. `sizes` are to be weighed in later attention (their logarithm added to the logits).
        A token that was pruned and lies farther than 1.5 cutoffs from every centre is lost.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, or a number is out of range.

    Notes
    -----
    Ties: lower index first, also among equal densities (the official code ranks them in any order). Half-precision
    inputs are rounded after every operation, sums of a cluster once. Deviations: ranks of densities do not collide in
    half precision; at least one token is clustered, where the official code keeps N - 1 if int(share * N) is 0.

    References
    ----------
    Dhouib et al.: PACT. CVPR 2025, arXiv 2504.08966; orailix/PACT at cf9a0c9.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> merged = pact(x, x, np.ones(3), share=1.0)
    >>> merged.kept, merged.sizes
    (array([1, 2]), array([2., 1.]))
    """
    sizes = check_arrays({"hidden": (hidden, "N E"), "keys": (keys, "N D"), "importance": (importance, "N")})
    total = sizes["N"]
    check_number("cutoff", cutoff, 0.0, 2.0)
    check_number("share", share, 0.0, 1.0)
    xp = namespace(hidden)
    precision = Precision.of(hidden, keys)
    survivors = in_sequence(largest(importance, max(1, int(share * total))))
    pruned = remaining(survivors, total)
    units = precision.units(precision.enter(keys))
    distances = cosine_distances(tokens_at(units, survivors), precision)
    density = neighbour_density(distances, WIDTH, precision=precision)
    centres, cutoff = _centres(distances, density, cutoff, total if budget is None else tokens_to_keep(budget, total))
    apart = 1 - precision.round(tokens_at(units, pruned) @ xp.matrix_transpose(tokens_at(units, survivors)))
    to_centres = xp.take(xp.concat([distances, precision.round(apart)]), centres, axis=1)
    near = xp.min(to_centres, axis=1) <= RECOVERY * cutoff
    label = xp.argmin(to_centres, axis=1)
    label = xp.where(near, label, xp.full_like(label, -1))
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
    """Return the centres and the cutoff, raised by bisection where there would be more than `most` of them."""
    centres = spread_peaks(distances, density, cutoff)
    if centres.shape[0] <= most:
        return centres, cutoff
    low, high = cutoff, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        found = spread_peaks(distances, density, middle)
        low, high = (low, middle) if found.shape[0] <= most else (middle, high)
    return spread_peaks(distances, density, high), high

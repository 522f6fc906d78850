"""PACT: prune unimportant visual tokens, cluster the others by density, and merge."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_indices, check_number
from iwp_core.methods._cosine import cosines
from iwp_core.methods._groups import group_sizes, group_sums
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, remaining, tokens_at
from iwp_core.methods.density_peaks import spread_peaks

__all__ = ["pact", "pact_importance"]

RECOVERY = 1.5
"""A pruned token joins its nearest centre within so many cutoffs."""

WIDTH = 2.0
"""Distance at which a neighbour counts 1/e for the density."""


def pact(
    hidden: Array, keys: Array, importance: Array, /, *, cutoff: float = 0.21, share: float = 0.55,
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
    inputs are rounded after every operation, sums of a cluster once. Deviations: ranks are integers, so that they do not
    collide in half precision; at least one token is clustered, where the official code keeps N - 1 if int(share * N)
    is 0.

    References
    ----------
    Dhouib et al.: PACT. CVPR 2025, arXiv 2504.08966; orailix/PACT at cf9a0c9.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> merged = pact(x, x, np.ones(3), share=1.0)
    >>> merged.kept, merged.sizes
    (array([0, 2]), array([2., 1.]))
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
    distances = _distances(tokens_at(units, survivors), precision)
    density = _density(distances, precision)
    most = None if budget is None else tokens_to_keep(budget, total)
    centres, cutoff = _centres(distances, density, cutoff, most)
    apart = 1 - precision.round(tokens_at(units, pruned) @ xp.matrix_transpose(tokens_at(units, survivors)))
    to_centres = xp.take(xp.concat([distances, precision.round(apart)]), centres, axis=1)
    near = xp.min(to_centres, axis=1) <= RECOVERY * cutoff
    label = xp.argmin(to_centres, axis=1)
    label = xp.where(near, label, xp.full_like(label, -1))
    assignment = xp.take(label, xp.argsort(xp.concat([survivors, pruned])))
    counts = group_sizes(xp.ones_like(precision.enter(hidden)[:, 0]), assignment, centres.shape[0])
    sums = precision.round(group_sums(precision.enter(hidden), assignment, centres.shape[0]))
    return MergedTokens(
        kept=xp.take(survivors, centres),
        tokens=precision.leave(precision.round(sums / precision.round(counts)[:, None])),
        sizes=counts,
        assignment=assignment,
    )


def pact_importance(hidden: Array, queries: Array, keys: Array, visual: Array, /) -> Array:
    """Return how important each visual token is: EUTI, by a global query and the size of the state.

    Parameters
    ----------
    hidden : array, shape (L, E)
        States entering the layer, of all tokens up to the last visual one.
    queries : array, shape (Hq, L, D)
        Their queries without rotary positions.
    keys : array, shape (H, L, D)
        Their keys without rotary positions; Hq is a multiple of H.
    visual : array of int, shape (N,)
        Where the visual tokens stand, ascending.

    Returns
    -------
    array, shape (N,)
        Float32 or float64.

    Raises
    ------
    TypeError, ValueError
        As `pact`; also if the heads do not fit.
    """
    sizes = check_arrays({"hidden": (hidden, "L E"), "queries": (queries, "Hq L D"), "keys": (keys, "H L D")})
    check_indices("visual", visual, sizes["L"], ("hidden", hidden))
    groups, rest = divmod(sizes["Hq"], sizes["H"])
    if rest:
        msg = f"`queries` has {sizes['Hq']} heads, expected a multiple of the {sizes['H']} heads of `keys`"
        raise ValueError(msg)
    xp = namespace(hidden)
    precision = Precision.of(hidden, queries, keys)
    query = xp.reshape(xp.mean(precision.enter(queries), axis=1), (sizes["H"], groups, sizes["D"]))
    logits = query @ xp.matrix_transpose(precision.enter(keys)) / sizes["D"] ** 0.5
    weights = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    attention = xp.reshape(weights / xp.sum(weights, axis=-1, keepdims=True), (sizes["Hq"], sizes["L"]))
    scores = xp.mean(attention, axis=0) * precision.norm(precision.enter(hidden))
    return xp.take(scores, visual)


def _distances(units: Array, precision: Precision) -> Array:
    xp = namespace(units)
    apart = precision.round(1 - cosines(units, precision, normalised=True))
    places = arange_indices(units.shape[0], units)
    return xp.where(places[:, None] == places[None, :], xp.zeros_like(apart), xp.clip(apart, 0, None))


def _density(distances: Array, precision: Precision) -> Array:
    halves = precision.round(distances / WIDTH)
    return precision.sum(precision.round(namespace(halves).exp(-precision.round(halves * halves))), axis=1)


def _centres(distances: Array, density: Array, cutoff: float, most: int | None) -> tuple[Array, float]:
    """Return the centres and the cutoff, raised by bisection where there would be more than `most` of them."""
    centres = spread_peaks(distances, density, cutoff)
    if most is None or centres.shape[0] <= most:
        return centres, cutoff
    low, high = cutoff, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        found = spread_peaks(distances, density, middle)
        low, high = (low, middle) if found.shape[0] <= most else (middle, high)
    return spread_peaks(distances, density, high), high

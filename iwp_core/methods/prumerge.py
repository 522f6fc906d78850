"""PruMerge: keep tokens whose attention from the class token is an outlier, and merge their neighbours into them."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest, mask_of, placed, ranks_descending, remaining, tokens_at
from iwp_core.methods.prumerge_share import affordable_share, outlier_share, spacing

__all__ = ["prumerge"]


def prumerge(
    features: Array,
    keys: Array,
    attention: Array,
    /,
    *,
    share: float | None = None,
    budget: float | None = None,
    spread: bool = False,
    neighbours: int = 32,
) -> MergedTokens:
    """Keep the most attended tokens, add their neighbours to them, and sum up the others in one token more.

    Reads the features that the language model gets and the keys and class attention of the vision tower's last layer.

    Parameters
    ----------
    features : array, shape (N, E)
        Patch features, without the class token.
    keys : array, shape (N, D)
        Their keys, all heads of a token in a row.
    attention : array, shape (N,)
        See `prumerge_attention`; a tower without class token: the mean over all queries.
    share : float
        Share of tokens kept by attention: int(N * share). Default: `outlier_share` of the attention.
    budget : int or float
        Sets the share so that at most so many tokens, or that share of them, remain, the one more included.
    spread : bool
        PruMerge+: keep evenly spaced tokens as well, about three for each kept by attention.
    neighbours : int
        Tokens added to each kept one.

    Returns
    -------
    MergedTokens
        First those kept by attention, most attended first, then the evenly spaced ones, ascending, then the one more,
        which stands in the place of the most attended dropped token. `sizes` are ones.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, a number is out of range, `share` and `budget` are both given, or the
        budget is too small for one kept token and the one more.

    Notes
    -----
    A token's neighbours are the 32 others of most similar key (ties: lower index), each weighed by its attention, the
    sum undivided, as in the official code. Half-precision inputs are rounded after every operation. int(N * share) can
    be one less than a count that the share was computed from, as there. Deviations: no outlier keeps one token, where
    PruMerge+ divides by zero; evenly spaced tokens span any N, not 576; the training branch is left out.

    References
    ----------
    Shang et al.: LLaVA-PruMerge. ICCV 2025, arXiv 2403.15388; 42Shawn/LLaVA-PruMerge at 097c041.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.1]])
    >>> merged = prumerge(x, x, np.asarray([0.1, 0.2, 0.6, 0.1]), share=0.25, neighbours=1)
    >>> merged.kept, merged.tokens[0]
    (array([2, 1]), array([0. , 2.2]))
    """
    sizes = check_arrays({"features": (features, "N E"), "keys": (keys, "N D"), "attention": (attention, "N")})
    total = sizes["N"]
    check_count("neighbours", neighbours, 0)
    if share is not None and budget is not None:
        msg = "`share` and `budget` exclude each other"
        raise ValueError(msg)
    if budget is not None:
        share = affordable_share(tokens_to_keep(budget, total), total, spread=spread)
    share = outlier_share(attention) if share is None else check_number("share", share, 0.0, 1.0)
    xp = namespace(features)
    kept = largest(attention, max(1, int(total * share)))
    if spread:
        spaced = arange_indices(total, kept)[: max(1, total - 1) : spacing(share)]
        kept = xp.concat([kept, spaced[~xp.take(mask_of(kept, total), spaced)]])
    return _merge(features, keys, attention, kept, neighbours)


def _merge(features: Array, keys: Array, attention: Array, kept: Array, neighbours: int) -> MergedTokens:
    xp = namespace(features)
    total, count = features.shape[0], kept.shape[0]
    precision = Precision.of(features, keys, attention)
    states, weights = precision.enter(features), precision.enter(attention)
    units = precision.units(precision.enter(keys))
    alike = precision.round(tokens_at(units, kept) @ xp.matrix_transpose(units))
    itself = kept[:, None] == arange_indices(total, kept)[None, :]
    alike = xp.where(itself, xp.full_like(alike, -xp.inf), alike)
    member = ranks_descending(alike) < min(neighbours, total - 1)
    weighed = precision.round(states * weights[:, None])
    added = precision.round(xp.astype(member, states.dtype) @ weighed)
    tokens = precision.round(tokens_at(states, kept) + added)
    dropped = remaining(kept, total)
    rows, everything = arange_indices(count, kept), xp.concat([kept, dropped])
    if dropped.shape[0]:
        more = precision.sum(tokens_at(weighed, dropped), axis=0)
        kept = xp.concat([kept, tokens_at(dropped, largest(tokens_at(weights, dropped), 1))])
        tokens = xp.concat([tokens, more[None, :]])
        rows = xp.concat([rows, xp.full_like(dropped, count)])
    tokens = precision.leave(tokens)
    ones = xp.ones_like(tokens[:, 0])
    return MergedTokens(kept=kept, tokens=tokens, sizes=ones, assignment=placed(rows, everything))

"""PruMerge: keep tokens whose attention from the class token is an outlier, and add their neighbours to them."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest, mask_of, placed, ranks_descending, remaining, tokens_at
from iwp_core.methods._ties import tied
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
    """Keep the most attended tokens, add their neighbours to them, and sum up the dropped tokens in one extra token.

    The published method reads the features before the projector, and keys and attention of the tower's last layer.

    Parameters
    ----------
    features : array of float, shape (N, E)
        Features of the patches, without the class token.
    keys : array of float, shape (N, D)
        Their keys, the heads of a token concatenated.
    attention : array of float, shape (N,)
        See `prumerge_attention`. Without a class token: the mean attention over all queries.
    share : float
        Share of the tokens that is kept by attention, 0 to 1: max(1, int(N * share)). Default: `outlier_share`.
    budget : int or float
        Upper limit on the number of tokens, or on their share, the extra token included. It sets `share`.
    spread : bool
        PruMerge+: evenly spaced tokens are kept too, about three for each token kept by attention.
    neighbours : int
        Number of tokens that are added to each kept token, at least 0.

    Returns
    -------
    MergedTokens
        The tokens kept by attention, the most attended first; the evenly spaced ones, ascending; the extra token, in
        the place of the most attended dropped token. `sizes` are ones.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range; if both `share` and `budget` are given, or the budget is too small.

    Notes
    -----
    The neighbours of a token are the other tokens with the most similar keys. Each is weighed by its attention, and the
    sum is not divided. Of equal scores, the lower index is taken. In half precision every operation is rounded, as in
    the official code.

    Deviations: without an outlier one token is kept, where PruMerge+ divides by zero; evenly spaced tokens span all N
    tokens, not 576; the branch for training is left out.

    References
    ----------
    Shang et al.: LLaVA-PruMerge. ICCV 2025, arXiv 2403.15388. Code: 42Shawn/LLaVA-PruMerge at 097c041.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.1]])
    >>> merged = prumerge(x, x, np.asarray([0.1, 0.2, 0.6, 0.1]), share=0.25, neighbours=1)
    >>> merged.kept, merged.tokens[0]
    (array([2, 1]), array([0. , 2.2]))
    """
    total = check_arrays({"features": (features, "N E"), "keys": (keys, "N D"), "attention": (attention, "N")})["N"]
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
    alike = tied(precision.round(tokens_at(units, kept) @ xp.matrix_transpose(units)), units[None, :, :])
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
    return MergedTokens(kept=kept, tokens=tokens, sizes=xp.ones_like(tokens[:, 0]), assignment=placed(rows, everything))

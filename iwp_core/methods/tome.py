"""ToMe: merge the most similar pairs of tokens across two halves."""

from iwp_core._arrays import Array, arange_indices, namespace, order_descending
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count, check_exactly_one
from iwp_core.methods._groups import gathered
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, placed, tokens_at
from iwp_core.methods.bipartite_matching import match_halves

__all__ = ["tome"]


def tome(
    metric: Array,
    x: Array,
    /,
    *,
    merge: int | None = None,
    budget: float | None = None,
    sizes: Array | None = None,
    class_token: bool = False,
) -> MergedTokens:
    """Merge pairs of tokens, one of even and one of odd index, that are most alike.

    Reads the keys of the layer (mean over heads) and the tokens; acts between attention and MLP, in every layer.

    Parameters
    ----------
    metric : array, shape (N, D)
        By which tokens are compared.
    x : array, shape (N, E)
        Tokens.
    merge : int
        r, tokens to merge away; at most half of the tokens are. Exactly one of `merge` and `budget` is given.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    sizes : array, shape (N,)
        How many tokens each stands for from merges before; default ones.
    class_token : bool
        Whether token 0 is a class token: it is never merged into another, and unmerged tokens keep their order.

    Returns
    -------
    MergedTokens
        First the unmerged even tokens (with a class token ascending, else by falling similarity), then the odd ones:
        each the mean of what it stands for, weighed by sizes.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, both or none of `merge` and `budget` are given, one is out of range,
        or the budget asks to merge more than half of the tokens at once.

    Notes
    -----
    Ties: lower index first. Half-precision inputs are rounded after every operation; sums of several tokens are rounded
    once. With r = 0 all tokens stay in their order, as in the official code.

    References
    ----------
    Bolya et al.: Token Merging: Your ViT But Faster. ICLR 2023, arXiv 2210.09461; facebookresearch/ToMe at af95e4b.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [-1.0, 0.0]])
    >>> merged = tome(x, x, merge=1)
    >>> merged.kept, merged.sizes
    (array([2, 1, 3]), array([1., 2., 1.]))
    """
    arrays = {"metric": (metric, "N D"), "x": (x, "N E")} | ({} if sizes is None else {"sizes": (sizes, "N")})
    total = check_arrays(arrays)["N"]
    xp = namespace(metric)
    given = xp.ones_like(x[:, 0]) if sizes is None else sizes
    merge = _number_to_merge(merge, budget, total, most=(total - int(class_token)) // 2)
    everything = arange_indices(total, metric)
    if merge == 0:
        return MergedTokens(kept=everything, tokens=x, sizes=given, assignment=everything)
    precision = Precision.of(metric, x, given)
    similarity, match = match_halves(precision.enter(metric), precision=precision)
    evens, odds = everything[0::2], everything[1::2]
    if class_token:
        similarity = xp.where(evens == 0, xp.full_like(similarity, -xp.inf), similarity)
    order = order_descending(similarity)
    source, unmerged = order[:merge], in_sequence(order[merge:]) if class_token else order[merge:]
    kept, moved = xp.concat([tokens_at(evens, unmerged), odds]), tokens_at(evens, source)
    into = tokens_at(match, source)
    rows = xp.concat([arange_indices(kept.shape[0], kept), into + unmerged.shape[0]])
    states, weights = precision.enter(x), precision.enter(given)[:, None]
    weighted = states if sizes is None else precision.round(states * weights)
    sums, counts = (precision.round(gathered(values, kept, moved, into)) for values in (weighted, weights))
    return MergedTokens(
        kept=kept,
        tokens=precision.leave(precision.round(sums / counts)),
        sizes=precision.leave(counts[:, 0]),
        assignment=placed(rows, xp.concat([kept, moved])),
    )


def _number_to_merge(merge: int | None, budget: float | None, total: int, *, most: int) -> int:
    """Return r, at most half of the tokens that may be merged.

    Raises
    ------
    ValueError
        If the budget asks for more.
    """
    check_exactly_one(merge=merge, budget=budget)
    if budget is None:
        return min(check_count("merge", merge, 0), most)
    away = total - tokens_to_keep(budget, total)
    if away > most:
        msg = f"`budget` is {budget!r}: {away} of {total} tokens would be merged, at most {most} can be at once"
        raise ValueError(msg)
    return away

"""ToMe: merge the most similar pairs of tokens of even and odd index."""

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
    """Merge the most similar pairs of one token of even and one of odd index.

    The published method acts in every layer, between attention and MLP. Its `metric` is the mean key over heads.

    Parameters
    ----------
    metric : array of float, shape (N, D)
        Features by which tokens are compared.
    x : array of float, shape (N, E)
        Tokens.
    merge : int
        Number r >= 0 of tokens to merge into others, at most half of all. Give either `merge` or `budget`.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    sizes : array of float, shape (N,)
        Number of tokens that each token already stands for. Default: ones.
    class_token : bool
        Whether token 0 is a class token. It is never merged into another token.

    Returns
    -------
    MergedTokens
        First the unmerged even tokens, by falling similarity, or ascending with a class token. Then the odd tokens,
        each the mean of the tokens that it stands for, weighed by their sizes.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if not
        exactly one of `merge` and `budget` is given, or it is out of range; if the budget merges too many.

    Notes
    -----
    Of equal scores, the lower index is taken. In half precision every operation is rounded, as in the official code.
    With r = 0 all tokens stay in order.

    References
    ----------
    Bolya et al.: Token Merging. ICLR 2023, arXiv 2210.09461. Code: facebookresearch/ToMe at af95e4b.

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

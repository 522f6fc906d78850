"""VisionZip: keep the most attended (dominant) tokens, and merge the others into contextual tokens."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.methods._checks import check_arrays, check_count
from iwp_core.methods._groups import group_sizes, group_sums
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, mask_of, placed, remaining, tokens_at
from iwp_core.methods._ties import tied

__all__ = ["visionzip"]


def visionzip(
    hidden: Array, keys: Array, attention: Array, /, *, dominant: int, contextual: int, class_token: bool = True
) -> MergedTokens:
    """Keep dominant tokens, and merge the others into contextual tokens by the similarity of their keys.

    The published method reads the last layer but one of the vision tower.

    Parameters
    ----------
    hidden : array of float, shape (N, E)
        Tokens, the class token first if there is one.
    keys : array of float, shape (N, D)
        Their keys, averaged over heads.
    attention : array of float, shape (H, N)
        Softmax attention of the class token to each token, for each head of the tower. Without a class token: the mean
        attention over all queries.
    dominant : int
        Number of dominant tokens, the class token included, 1 to N. The paper has 54, 108 or 162.
    contextual : int
        Number of contextual tokens, 0 to N - `dominant`. The paper has 10, 20 or 30.
    class_token : bool
        Whether row 0 is a class token, which is then always kept.

    Returns
    -------
    MergedTokens
        First the dominant tokens, unchanged and ascending, then the contextual tokens, in the order of their targets.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number is not an integer.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if
        `dominant` or `contextual` is out of range.

    Notes
    -----
    Dominant are the tokens with the most attention, summed over heads. Evenly spaced tokens of the others are the
    targets. Each remaining token is assigned to the target with the most similar key. A contextual token is the target
    plus the mean of the tokens assigned to it, as in the official code; the paper speaks of an average. Of equal
    scores, the lower index is taken. In half precision every operation is rounded, as in the official code. Deviation:
    `contextual` may be 0.

    References
    ----------
    Yang et al.: VisionZip. CVPR 2025, arXiv 2412.04467. Code: dvlab-research/VisionZip at 3151f6d.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0.0], [1.0], [2.0], [4.0]])
    >>> merged = visionzip(x, x + 1, np.asarray([[0.4, 0.3, 0.2, 0.1]]), dominant=2, contextual=1)
    >>> merged.kept, merged.tokens[:, 0]
    (array([0, 1, 2]), array([0., 1., 6.]))
    """
    sizes = check_arrays({"hidden": (hidden, "N E"), "keys": (keys, "N D"), "attention": (attention, "H N")})
    total = sizes["N"]
    check_count("dominant", dominant, 1, total)
    check_count("contextual", contextual, 0, total - dominant)
    xp = namespace(hidden)
    precision = Precision.of(hidden, keys, attention)
    first = int(class_token)
    scores = tied(precision.sum(precision.enter(attention)[:, first:], axis=0), attention[:, first:, None])
    top = largest(scores, dominant - first) + first
    main = in_sequence(xp.concat([arange_indices(total, top)[:first], top]))
    if contextual == 0:
        slots = xp.searchsorted(main, arange_indices(total, top))
        assignment = xp.where(mask_of(main, total), slots, xp.full_like(slots, -1))
        ones = xp.ones_like(hidden[:dominant, 0])
        return MergedTokens(kept=main, tokens=tokens_at(hidden, main), sizes=ones, assignment=assignment)
    rest = remaining(main, total)
    places = arange_indices(contextual, rest) * (rest.shape[0] // contextual)
    targets = xp.take(rest, places)
    rows = xp.concat([main, targets])
    others = remaining(rows, total)
    units = precision.units(precision.enter(keys))
    nearest = precision.round(tokens_at(units, others) @ xp.matrix_transpose(tokens_at(units, targets)))
    nearest = tied(nearest, tokens_at(units, targets)[None, :, :])
    joined = xp.argmax(nearest, axis=1) if others.shape[0] else others
    states = precision.enter(hidden)
    sums = precision.round(group_sums(tokens_at(states, others), joined, contextual))
    counts = group_sizes(xp.ones_like(tokens_at(states[:, 0], others)), joined, contextual)
    means = precision.round(sums / xp.clip(counts, 1, None)[:, None])
    merged = precision.leave(precision.round(tokens_at(states, targets) + means))
    everything = xp.concat([rows, others])
    rank = xp.concat([arange_indices(dominant + contextual, rows), joined + dominant])
    return MergedTokens(
        kept=rows,
        tokens=xp.concat([tokens_at(hidden, main), merged]),
        sizes=precision.leave(xp.concat([xp.ones_like(states[:dominant, 0]), counts + 1])),
        assignment=placed(rank, everything),
    )

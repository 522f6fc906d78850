"""VisionZip: dominant tokens by attention of the class token, and contextual ones merged from the rest."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.methods._checks import check_arrays, check_count
from iwp_core.methods._groups import group_sizes, group_sums
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, mask_of, placed, remaining, tokens_at

__all__ = ["visionzip"]


def visionzip(
    hidden: Array, keys: Array, attention: Array, /, *, dominant: int, contextual: int, class_token: bool = True
) -> MergedTokens:
    """Keep dominant tokens, and merge the rest into contextual ones by similarity of keys.

    Reads one layer of the vision tower (as published the last but one).

    Parameters
    ----------
    hidden : array, shape (N, E)
        Tokens, the class token first if there is one.
    keys : array, shape (N, D)
        Their keys, mean over heads.
    attention : array, shape (H, N)
        Soft-max attention of the class token to each token, by head; a tower without class token: the mean over all
        queries.
    dominant : int
        Dominant tokens, the class token among them. As published 54, 108 or 162.
    contextual : int
        Contextual tokens. As published 10, 20 or 30.
    class_token : bool
        Whether row 0 is a class token, which is then always kept.

    Returns
    -------
    MergedTokens
        First the dominant tokens as they are, ascending, then the contextual ones in the order of their targets: a
        target plus the mean of what was assigned to it.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a count no integer.
    ValueError
        If shapes do not fit, data is not finite, or the counts ask for more tokens than there are.

    Notes
    -----
    Targets are evenly spaced among the rest. Ties: lower index first. Half-precision inputs are rounded after every
    operation, as the official code does. A contextual token is the *sum* of target and mean, as in the official code;
    the paper speaks of an average. Deviation: `contextual` may be 0.

    References
    ----------
    Yang et al.: VisionZip. CVPR 2025, arXiv 2412.04467; dvlab-research/VisionZip at 3151f6d.

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
    scores = precision.sum(precision.enter(attention)[:, first:], axis=0)
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

"""TrimTokenator: keep visual tokens that are aligned with the text and have a large sum of distances."""

import math

from iwp_core._arrays import Array, namespace, tiles
from iwp_core._validate import check_name
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, tokens_at
from iwp_core.methods._ties import tied
from iwp_core.methods.max_sum import greedy_max_sum

__all__ = ["aligned", "trimtokenator"]

ALIGNMENTS = ("l2", "mutual_information", "cosine")

BLOCK = 1 << 22
"""Numbers that the differences of a block of token pairs hold."""


@in_context
def trimtokenator(visual: Array, text: Array, /, budget: float, *, alignment: str = "l2", share: float = 0.8) -> Array:
    """Keep tokens that are aligned with the text and far from each other on average (Greedy RepMax).

    The published method reads the visual tokens and the text embeddings at the input of the language model.

    Parameters
    ----------
    visual : array of float, shape (N, E)
        Visual tokens.
    text : array of float, shape (T, E)
        Text tokens.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    alignment : {"l2", "mutual_information", "cosine"}
        Alignment of a visual token, averaged over the text tokens: minus the distance (equation 3), minus the squared
        distance, or the cosine.
    share : float
        Share of the tokens that pass the first stage, 0 to 1: the max(M, floor(share * N)) best aligned.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range; if `alignment` is unknown.

    Notes
    -----
    The second stage starts with the token of the smallest mean cosine to all tokens that passed, and goes on with the
    token of the smallest summed cosine to the chosen ones. Of equal scores, the lower index is taken. The paper leaves
    open what happens if fewer than M tokens pass the first stage; here M pass. No official code was found.

    References
    ----------
    Zhang et al.: TrimTokenator. arXiv 2509.00320, equations 3 to 10.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [9.0, 9.0]])
    >>> trimtokenator(x, x[:1, :], 2)
    array([0, 2])
    """
    candidates = aligned(visual, text, budget, alignment=alignment, share=share)
    chosen = greedy_max_sum(tokens_at(visual, candidates), tokens_to_keep(budget, visual.shape[0]))
    return in_sequence(tokens_at(candidates, chosen))


def aligned(visual: Array, text: Array, /, budget: float, *, alignment: str = "l2", share: float = 0.8) -> Array:
    """Return the candidates that pass the first stage.

    Parameters
    ----------
    visual, text, budget, alignment, share : array, array, int or float, str, float
        As for `trimtokenator`. "mutual_information" is the mutual information under the Gaussian model of the paper's
        appendix B, up to constants. Its nearest-neighbour estimate is not offered.

    Returns
    -------
    array of int64, shape (max(M, floor(share * N)),)
        Indices, ascending.

    Raises
    ------
    TypeError, ValueError
        As `trimtokenator`.
    """
    total = check_arrays({"visual": (visual, "N E"), "text": (text, "T E")})["N"]
    check_name("alignment", alignment, ALIGNMENTS)
    check_number("share", share, 0.0, 1.0)
    xp = namespace(visual)
    precision = Precision.of(visual, text)
    rows, others = precision.enter(visual), precision.enter(text)
    if alignment == "cosine":
        cosine = precision.round(precision.units(rows) @ xp.matrix_transpose(precision.units(others)))
        scores = precision.mean(cosine, axis=1)
    else:
        size = max(1, BLOCK // (others.shape[0] * others.shape[1]))
        apart = [
            precision.norm(precision.round(rows[tile, None, :] - others[None, :, :])) for tile in tiles(total, size)
        ]
        distances = xp.concat(apart)
        squared = alignment == "mutual_information"
        scores = -precision.mean(precision.round(distances * distances) if squared else distances, axis=1)
    left = max(tokens_to_keep(budget, total), math.floor(share * total))
    return in_sequence(largest(tied(scores, visual[None, :, :]), left))

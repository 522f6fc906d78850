"""TrimTokenator: visual tokens that align with the text, and of those a set of large summed distance."""

import math

from iwp_core._arrays import Array, namespace, tiles
from iwp_core._validate import check_name
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, tokens_at
from iwp_core.methods.max_sum import greedy_max_sum

__all__ = ["aligned", "trimtokenator"]

ALIGNMENTS = ("l2", "mutual_information", "cosine")

BLOCK = 1 << 22
"""Numbers that the differences of a block of token pairs hold."""


def trimtokenator(visual: Array, text: Array, /, budget: float, *, alignment: str = "l2", share: float = 0.8) -> Array:
    """Keep aligned tokens that are far from each other on average (Greedy RepMax).

    Reads visual tokens and text embeddings at the input of the language model.

    Parameters
    ----------
    visual : array, shape (N, E)
    text : array, shape (T, E)
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    alignment : str
        By which the first stage ranks, see `aligned`.
    share : float
        Share of the tokens that the first stage leaves, 0 to 1: max(M, floor(share * N)).

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, a number is out of range, or the alignment is unknown.

    Notes
    -----
    The second stage takes the token of least mean similarity to all, and then always the one of least summed cosine to
    the chosen. Ties: lower index first. The paper leaves open what happens where the first stage would leave fewer than
    M; here it leaves M. No official code was found.

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
    """Return the candidates that the first stage leaves, ascending.

    Parameters
    ----------
    visual, text, budget, alignment, share
        As for `trimtokenator`. Candidates have the largest mean, over the text tokens, of: ``"l2"`` minus the distance
        (equation 3), ``"mutual_information"`` minus the squared distance, which is the mutual information under the
        Gaussian model of the paper's appendix B but for constants (its nearest-neighbour estimate is not offered),
        ``"cosine"`` the cosine.

    Returns
    -------
    array of int64, shape (max(M, floor(share * N)),)

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
    return in_sequence(largest(scores, left))

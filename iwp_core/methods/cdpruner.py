"""CDPruner: a determinantal point process of the visual tokens, conditioned on the instruction."""

from iwp_core._arrays import Array, as_dtype, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._cosine import cosines
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence
from iwp_core.methods.determinantal import greedy_determinant

__all__ = ["cdpruner", "cdpruner_order"]


def cdpruner(features: Array, relevance: Array, /, budget: float) -> Array:
    """Keep tokens that are relevant and different, by greedy MAP of a DPP.

    Reads the visual tokens that the language model gets, and their relevance (`cdpruner_relevance`).

    Parameters
    ----------
    features : array, shape (N, E)
        Tokens of one image or crop.
    relevance : array, shape (N,)
        q >= 0.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or `budget` no real number.
    ValueError
        If shapes do not fit, data is not finite, relevance is negative, or the budget is out of range.

    Notes
    -----
    The kernel L_ij = q_i cos(x_i, x_j) q_j is at least float32; half-precision rows are normalised in their own dtype
    first, as in the official code. Ties: lower index first. Deviation from the official code: where M exceeds the rank
    of the kernel, it computes NaN and keeps fewer tokens; here the missing ones are the most relevant of the others.

    References
    ----------
    Zhang et al.: Beyond Attention or Similarity. NeurIPS 2025, arXiv 2506.10967; Theia-4869/CDPruner at 9541616.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> cdpruner(x, np.asarray([1.0, 0.9, 0.5]), 2)
    array([0, 2])
    """
    return in_sequence(cdpruner_order(features, relevance, budget))


def cdpruner_order(features: Array, relevance: Array, /, budget: float) -> Array:
    """Return what `cdpruner` keeps, in the order of choice.

    Parameters
    ----------
    features, relevance, budget : array, array, int or float
        As for `cdpruner`.

    Returns
    -------
    array of int64, shape (M,)

    Raises
    ------
    TypeError
        As `cdpruner`.
    ValueError
        As `cdpruner`.
    """
    check_arrays({"features": (features, "N E"), "relevance": (relevance, "N")})
    xp = namespace(features)
    if bool(xp.any(relevance < 0)):
        msg = f"`relevance` has entries down to {float(xp.min(relevance)):g}, expected none below 0"
        raise ValueError(msg)
    precision = Precision.of(features)
    full = Precision(None, precision.compute)
    units = precision.units(precision.enter(features))
    similarity = cosines(units, full, normalised=True)
    quality = as_dtype(relevance, similarity.dtype)
    return greedy_determinant(similarity, quality, tokens_to_keep(budget, features.shape[0]))

"""CDPruner: visual tokens that are relevant to the instruction and different from each other."""

from iwp_core._arrays import Array, as_dtype, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.identical import first_identical
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._cosine import cosines
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence
from iwp_core.methods.determinantal import greedy_determinant

__all__ = ["cdpruner", "cdpruner_order"]


@in_context
def cdpruner(features: Array, relevance: Array, /, budget: float) -> Array:
    """Keep tokens that are relevant and different, by greedy MAP inference in a determinantal point process (DPP).

    The published method reads the visual tokens behind the projector, and their relevance (`cdpruner_relevance`).

    Parameters
    ----------
    features : array of float, shape (N, E)
        Tokens of one image or crop.
    relevance : array of float, shape (N,)
        Relevance q_i >= 0 of each token.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if `budget` is not a real number.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a
        relevance is negative; if `budget` is out of range.

    Notes
    -----
    The kernel of the DPP is L_ij = q_i cos(x_i, x_j) q_j, computed in at least float32. Rows in float16 or bfloat16 are
    first normalised in their own dtype, as in the official code. Of equal scores, the lower index is taken.

    Deviation: if M exceeds the rank of the kernel, the official code computes NaN and keeps fewer tokens. Here the rest
    of the budget goes to the most relevant of the other tokens.

    References
    ----------
    Zhang et al.: Beyond Attention or Similarity. NeurIPS 2025, arXiv 2506.10967. Code: Theia-4869/CDPruner at 9541616.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> cdpruner(x, np.asarray([1.0, 0.9, 0.5]), 2)
    array([0, 2])
    """
    return in_sequence(cdpruner_order(features, relevance, budget))


@in_context
def cdpruner_order(features: Array, relevance: Array, /, budget: float) -> Array:
    """Return the tokens that `cdpruner` keeps, in the order of choice.

    Parameters
    ----------
    features, relevance, budget : array, array, int or float
        As for `cdpruner`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the kept tokens, the first choice first.

    Raises
    ------
    TypeError
        As `cdpruner`.
    ValueError
        As `cdpruner`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> cdpruner_order(x, np.asarray([0.5, 0.4, 1.0]), 2)
    array([2, 0])
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
    identical = first_identical(features[None, :, :], relevance[None, :, None])
    return greedy_determinant(similarity, quality, tokens_to_keep(budget, features.shape[0]), identical)

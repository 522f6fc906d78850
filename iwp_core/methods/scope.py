"""SCOPE: cover the visual tokens well, with tokens that the class token attends to."""

from iwp_core._arrays import Array, as_dtype, namespace
from iwp_core._validate import check_name
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._cosine import cosines
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence
from iwp_core.methods.facility_location import greedy_coverage

__all__ = ["scope", "scope_order"]

COMBINATIONS = ("multiply", "add")


def scope(
    features: Array, attention: Array, /, budget: float, *, exponent: float = 1.0, combination: str = "multiply"
) -> Array:
    """Keep tokens by greedy facility location, whose gains are weighed by saliency.

    Reads one layer of the vision tower, before the projector.

    Parameters
    ----------
    features : array, shape (N, E)
        Patch features, without the class token.
    attention : array, shape (H, N)
        Soft-max attention of the class token to each patch, by head; a tower without class token: the mean over all
        queries. Its sum over heads is the saliency w.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    exponent : float
        alpha, 0 to 10: w is raised to this power.
    combination : str
        ``"multiply"`` (the paper) scores a token by gain * w^alpha, ``"add"`` by gain + w^alpha.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, a number is out of range, or the combination is unknown.

    Notes
    -----
    Ties: lower index first. Half-precision inputs are rounded after every operation, as the official code does.
    Evaluated lazily, with the answer of the official loop over all pairs in every step. Deviation: M distinct tokens at
    most N, where the official code repeats index 0.

    References
    ----------
    Deng et al.: SCOPE: Saliency-Coverage Oriented Token Pruning. NeurIPS 2025, arXiv 2510.24214; kinredon/SCOPE at
    6bf7306.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> scope(x, np.asarray([[0.5, 0.3, 0.2]]), 2)
    array([0, 2])
    """
    return in_sequence(scope_order(features, attention, budget, exponent=exponent, combination=combination))


def scope_order(
    features: Array, attention: Array, /, budget: float, *, exponent: float = 1.0, combination: str = "multiply"
) -> Array:
    """Return what `scope` keeps, in the order of choice.

    Parameters
    ----------
    features, attention, budget, exponent, combination : array, array, int or float, float, str
        As for `scope`.

    Returns
    -------
    array of int64, shape (M,)

    Raises
    ------
    TypeError, ValueError
        As `scope`.
    """
    check_arrays({"features": (features, "N E"), "attention": (attention, "H N")})
    check_number("exponent", exponent, 0.0, 10.0)
    check_name("combination", combination, COMBINATIONS)
    xp = namespace(features)
    precision = Precision.of(features, attention)
    similarity = cosines(precision.enter(features), precision)
    saliency = precision.round(precision.sum(precision.enter(attention), axis=0) ** exponent)

    def worth(gains: Array, tokens: Array) -> Array:
        weights = xp.take(as_dtype(saliency, gains.dtype), tokens)
        return precision.round(gains * weights if combination == "multiply" else gains + weights)

    return greedy_coverage(similarity, worth, tokens_to_keep(budget, features.shape[0]), precision=precision)

"""SCOPE: keep visual tokens that cover the others well and that the class token attends to."""

from iwp_core._arrays import Array, as_dtype, namespace
from iwp_core._validate import check_name
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._cosine import cosines
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence
from iwp_core.methods._ties import tied
from iwp_core.methods.facility_location import greedy_coverage

__all__ = ["scope", "scope_order"]

COMBINATIONS = ("multiply", "add")


@in_context
def scope(
    features: Array, attention: Array, /, budget: float, *, exponent: float = 1.0, combination: str = "multiply"
) -> Array:
    """Keep tokens by greedy facility location, with each token's gain weighed by its saliency.

    The published method reads features and attention of one layer of the vision tower, before the projector.

    Parameters
    ----------
    features : array of float, shape (N, E)
        Features of the patches, without the class token.
    attention : array of float, shape (H, N)
        Softmax attention of the class token to each patch, for each head of the tower. Without a class token: the mean
        attention over all queries. The sum over heads is the saliency w of a patch.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    exponent : float
        Exponent alpha of the saliency, 0 to 10.
    combination : {"multiply", "add"}
        How a token is scored: "multiply", as in the paper, by gain * w^alpha, "add" by gain + w^alpha.

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
        is out of range; if `combination` is unknown.

    Notes
    -----
    A token is covered as far as its largest cosine to a kept token; the gain of a token is what it adds to the coverage
    of all. Gains are evaluated lazily, with the same result as the official loop over all pairs in every step. Of equal
    scores, the lower index is taken. In half precision every operation is rounded, as in the official code.

    Deviation: no token is chosen twice, where the official code repeats index 0 if M exceeds N.

    References
    ----------
    Deng et al.: SCOPE: Saliency-Coverage Oriented Token Pruning. NeurIPS 2025, arXiv 2510.24214. Code: kinredon/SCOPE
    at 6bf7306.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> scope(x, np.asarray([[0.5, 0.3, 0.2]]), 2)
    array([0, 2])
    """
    return in_sequence(scope_order(features, attention, budget, exponent=exponent, combination=combination))


@in_context
def scope_order(
    features: Array, attention: Array, /, budget: float, *, exponent: float = 1.0, combination: str = "multiply"
) -> Array:
    """Return the tokens that `scope` keeps, in the order of choice.

    Parameters
    ----------
    features, attention, budget, exponent, combination : array, array, int or float, float, str
        As for `scope`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the kept tokens, the first choice first.

    Raises
    ------
    TypeError, ValueError
        As `scope`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> scope_order(x, np.asarray([[0.1, 0.2, 0.7]]), 2)
    array([2, 1])
    """
    check_arrays({"features": (features, "N E"), "attention": (attention, "H N")})
    check_number("exponent", exponent, 0.0, 10.0)
    check_name("combination", combination, COMBINATIONS)
    xp = namespace(features)
    precision = Precision.of(features, attention)
    similarity = cosines(precision.enter(features), precision)
    summed = tied(precision.sum(precision.enter(attention), axis=0), attention[:, :, None])
    saliency = precision.round(summed**exponent)

    def worth(gains: Array, tokens: Array) -> Array:
        weights = xp.take(as_dtype(saliency, gains.dtype), tokens)
        return precision.round(gains * weights if combination == "multiply" else gains + weights)

    return greedy_coverage(similarity, worth, tokens_to_keep(budget, features.shape[0]), precision=precision)

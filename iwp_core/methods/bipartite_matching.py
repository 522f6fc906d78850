"""Bipartite soft matching: match each token of even index with the most similar token of odd index."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._precision import Precision
from iwp_core.methods._ties import tied

__all__ = ["match_halves"]


def match_halves(metric: Array, *, precision: Precision) -> tuple[Array, Array]:
    """Find for each token of even index the most similar token of odd index.

    Parameters
    ----------
    metric : array, shape (N, D)
        Features by which tokens are compared, N >= 2.
    precision : Precision
        Dtypes of the arithmetic.

    Returns
    -------
    similarity : array, shape (ceil(N / 2),)
        Cosine to the match.
    match : array of int, shape (ceil(N / 2),)
        Number of the match among the odd tokens; of equal cosines, the first.
    """
    xp = namespace(metric)
    units = precision.units(metric)
    even, odd = units[0::2, :], units[1::2, :]
    similarity = tied(precision.round(even @ xp.matrix_transpose(odd)), odd[None, :, :])
    return tied(xp.max(similarity, axis=1), even[None, :, :]), xp.argmax(similarity, axis=1)

"""Bipartite soft matching: match each token of even index with the most similar token of odd index."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._precision import Precision

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
    similarity = precision.round(units[0::2, :] @ xp.matrix_transpose(units[1::2, :]))
    return xp.max(similarity, axis=1), xp.argmax(similarity, axis=1)

"""Bipartite soft matching: every other token meets its most similar one among those between."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._precision import Precision

__all__ = ["match_halves"]


def match_halves(metric: Array, *, precision: Precision) -> tuple[Array, Array]:
    """Find for each token of even index the most similar token of odd index.

    Parameters
    ----------
    metric : array, shape (N, D)
        N at least 2.
    precision : Precision
        Of the arithmetic.

    Returns
    -------
    similarity : array, shape (ceil(N / 2),)
        Cosine to the match.
    match : array of int, shape (ceil(N / 2),)
        Place of the match among the odd tokens; the first on ties.
    """
    xp = namespace(metric)
    units = precision.units(metric)
    similarity = precision.round(units[0::2, :] @ xp.matrix_transpose(units[1::2, :]))
    return xp.max(similarity, axis=1), xp.argmax(similarity, axis=1)

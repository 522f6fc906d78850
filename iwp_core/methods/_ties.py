"""Ties between equal tokens. Sums and matrix products may round the same numbers differently by where they stand."""

from iwp_core._arrays import Array, namespace
from iwp_core.identical import first_identical
from iwp_core.methods._precision import Precision

__all__ = ["head_mean", "tied"]


def tied(values: Array, *tokens: Array) -> Array:
    """Return values in which equal tokens have those of the first of them, so that a tie goes to the lower index.

    Parameters
    ----------
    values : array, shape (..., N)
        What was computed of the tokens.
    *tokens : array, shape (H, N, D)
        All that it was computed of. Tokens are equal if they are in every array.
    """
    first = first_identical(*tokens)
    return values if first is None else namespace(values).take(values, first, axis=-1)


def head_mean(attention: Array, precision: Precision) -> Array:
    """Return the mean over heads (N,) of attention (H, N); tokens with equal attention have equal means."""
    return tied(precision.mean(precision.enter(attention), axis=0), attention[:, :, None])

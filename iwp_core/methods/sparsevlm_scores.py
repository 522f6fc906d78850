"""Scores of SparseVLM: how much attention the raters give to each visual token."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays, check_count, check_indices
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest
from iwp_core.methods._ties import tied

__all__ = ["sparsevlm_heads", "sparsevlm_scores"]


@in_context
def sparsevlm_scores(attention: Array, raters: Array, /, *, gravity: Array | None = None) -> Array:
    """Return the attention of the raters to each visual token, averaged over heads and raters.

    Parameters
    ----------
    attention, raters, gravity : array
        As for `sparsevlm`.

    Returns
    -------
    array of float, shape (N,)
        Scores, in float32 or float64. With `gravity`, only the heads of `sparsevlm_heads` are averaged.

    Raises
    ------
    TypeError, ValueError
        As `sparsevlm`.

    Examples
    --------
    >>> import numpy as np
    >>> sparsevlm_scores(np.asarray([[[0.25, 0.75], [0.5, 0.5]]]), np.asarray([0]))
    array([0.25, 0.75])
    """
    rated, precision = _rated(attention, raters, gravity)
    if gravity is not None:
        rated = namespace(rated).take(rated, sparsevlm_heads(attention, raters, gravity), axis=0)
    means = precision.mean(precision.mean(rated, axis=0), axis=0)
    return tied(means, namespace(rated).matrix_transpose(rated))


@in_context
def sparsevlm_heads(attention: Array, raters: Array, gravity: Array, /, *, count: int = 14) -> Array:
    """Return the heads in which the raters attend most to visual tokens, after division by the gravity.

    Parameters
    ----------
    attention, raters, gravity : array
        As for `sparsevlm`.
    count : int
        Number of heads, at least 1. All heads are returned if there are fewer.

    Returns
    -------
    array of int64, shape (count,)
        Indices of the heads, the one with most attention first.

    Raises
    ------
    TypeError, ValueError
        As `sparsevlm`; also if `count` is not an integer or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> attention = np.asarray([[[0.1, 0.2]], [[0.4, 0.3]]])
    >>> sparsevlm_heads(attention, np.asarray([0]), np.ones((1, 2)), count=1)
    array([1])
    """
    rated, precision = _rated(attention, raters, gravity)
    check_count("count", count, 1)
    mass = precision.sum(precision.sum(rated, axis=2), axis=1)
    return largest(mass, count)


def _rated(attention: Array, raters: Array, gravity: Array | None) -> tuple[Array, Precision]:
    """Return the attention of the raters, (Hq, R, N), divided by the gravity if there is one."""
    arrays = {"attention": (attention, "Hq T N")} | ({} if gravity is None else {"gravity": (gravity, "T N")})
    sizes = check_arrays(arrays)
    check_indices("raters", raters, sizes["T"], ("attention", attention))
    xp = namespace(attention)
    precision = Precision.of(attention)
    rated = xp.take(precision.enter(attention), raters, axis=1)
    if gravity is not None:
        rated = precision.round(rated / xp.take(precision.enter(gravity), raters, axis=0)[None, :, :])
    return rated, precision

"""SparseVLM: text tokens that look at the picture rate the visual tokens; the best of the dropped are merged."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count, check_indices
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest

__all__ = ["sparsevlm", "sparsevlm_heads", "sparsevlm_scores"]


def sparsevlm(attention: Array, raters: Array, /, budget: float, *, gravity: Array | None = None) -> Array:
    """Keep the visual tokens that the raters attend to most, at one stage.

    Reads the attention of the layer after which tokens are dropped (as published layers 2, 6 and 15).

    Parameters
    ----------
    attention : array, shape (Hq, T, N)
        Soft-max attention of each text token after the image to each visual token, by head.
    raters : array of int, shape (R,)
        See `sparsevlm_raters`.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    gravity : array, shape (T, N)
        Version 2: see `rotary_gravity`. The attention is divided by it, and the `sparsevlm_heads` count alone.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If an argument is no floating-point array (`raters`: no integer array), or `budget` no real number.
    ValueError
        If shapes do not fit, data is not finite, indices are out of range, or the budget is.

    Notes
    -----
    Ties: lower index first. Half-precision inputs are rounded after every operation, as the official code does.
    Deviations: any budget, not those of its table; a budget of N keeps all, where it keeps N - 1 at most. In version 1
    the dropped are merged into few more tokens: `sparsevlm_recycle`; `sparsevlm_counts` counts them within a budget.

    References
    ----------
    Zhang et al.: SparseVLM. ICML 2025, arXiv 2410.04417; Gumpest/SparseVLMs at 26a5f48.

    Examples
    --------
    >>> import numpy as np
    >>> sparsevlm(np.asarray([[[0.1, 0.3, 0.2], [0.5, 0.2, 0.1]]]), np.asarray([0]), 2)
    array([1, 2])
    """
    scores = sparsevlm_scores(attention, raters, gravity=gravity)
    return in_sequence(largest(scores, tokens_to_keep(budget, scores.shape[0])))


def sparsevlm_scores(attention: Array, raters: Array, /, *, gravity: Array | None = None) -> Array:
    """Return the raters' attention to each visual token, mean over heads and raters, shape (N,).

    Parameters
    ----------
    attention, raters, gravity : array
        As for `sparsevlm`.

    Returns
    -------
    array, shape (N,)

    Raises
    ------
    TypeError, ValueError
        As `sparsevlm`.
    """
    rated, precision = _rated(attention, raters, gravity)
    if gravity is not None:
        rated = namespace(rated).take(rated, sparsevlm_heads(attention, raters, gravity), axis=0)
    return precision.mean(precision.mean(rated, axis=0), axis=0)


def sparsevlm_heads(attention: Array, raters: Array, gravity: Array, /, *, count: int = 14) -> Array:
    """Return the heads in which raters attend to visual tokens most once divided by the gravity, the first one most.

    Parameters
    ----------
    attention, raters, gravity : array
        As for `sparsevlm`.
    count : int
        Heads; all where there are fewer.

    Returns
    -------
    array of int64, shape (count,)

    Raises
    ------
    TypeError, ValueError
        As `sparsevlm`; also if `count` is out of range.
    """
    rated, precision = _rated(attention, raters, gravity)
    check_count("count", count, 1)
    mass = precision.sum(precision.sum(rated, axis=2), axis=1)
    return largest(mass, count)


def _rated(attention: Array, raters: Array, gravity: Array | None) -> tuple[Array, Precision]:
    """Return the attention of the raters (Hq, R, N), divided by the gravity if there is one."""
    arrays = {"attention": (attention, "Hq T N")} | ({} if gravity is None else {"gravity": (gravity, "T N")})
    sizes = check_arrays(arrays)
    check_indices("raters", raters, sizes["T"], ("attention", attention))
    xp = namespace(attention)
    precision = Precision.of(attention)
    rated = xp.take(precision.enter(attention), raters, axis=1)
    if gravity is not None:
        rated = precision.round(rated / xp.take(precision.enter(gravity), raters, axis=0)[None, :, :])
    return rated, precision

"""How far two selections agree."""

import math

from iwp_core._arrays import Array, arange_indices, as_dtype, device, locate, namespace
from iwp_core._validate import check_kind

__all__ = ["selection_overlap"]


def selection_overlap(a: Array, b: Array) -> Array:
    """Return the intersection over union of two sets of positions.

    Parameters
    ----------
    a, b : array of int, shape (..., M) and (..., L)
        Distinct positions in any order; the same leading axes, which are batches. -1, which fills the shorter answers
        of `select_tokens`, counts for nothing.

    Returns
    -------
    array, shape (...)
        In [0, 1], in the library's default floating dtype; 1 for two empty sets.

    Raises
    ------
    TypeError
        If an argument is no integer array, or they are of different libraries.
    ValueError
        If the leading axes differ, a position is below -1, or one occurs twice.

    Notes
    -----
    Memory O(M + L).

    Examples
    --------
    >>> import numpy as np
    >>> float(selection_overlap(np.asarray([0, 1, 2]), np.asarray([1, 2, 3])))
    0.5
    """
    for name, indices in (("a", a), ("b", b)):
        check_kind(name, indices, "integral", ("a", a))
    if a.ndim == 0 or b.ndim == 0 or a.shape[:-1] != b.shape[:-1]:
        msg = f"`b` has shape {tuple(b.shape)}, expected the leading axes of `a`, which has shape {tuple(a.shape)}"
        raise ValueError(msg)
    xp = namespace(a)
    real = xp.__array_namespace_info__().default_dtypes()["real floating"]
    leading, sizes = tuple(a.shape[:-1]), (a.shape[-1], b.shape[-1])
    if sum(sizes) == 0 or math.prod(leading) == 0:
        return xp.ones(leading, dtype=real, device=device(a))
    dtype, rows = arange_indices(0, a).dtype, math.prod(leading)
    ranked_a, ranked_b = (xp.sort(as_dtype(xp.reshape(x, (rows, x.shape[-1])), dtype), axis=-1) for x in (a, b))
    for name, ranked in (("a", ranked_a), ("b", ranked_b)):
        _check_set(name, ranked)
    both = [locate(ranked_b[row, :], ranked_a[row, :])[0] & (ranked_a[row, :] >= 0) for row in range(rows)]
    count_both, count_a, count_b = (
        xp.reshape(xp.sum(as_dtype(x, real), axis=-1), leading) for x in (xp.stack(both), ranked_a >= 0, ranked_b >= 0)
    )
    either = count_a + count_b - count_both
    return xp.where(either > 0, count_both / xp.where(either > 0, either, xp.ones_like(either)), xp.ones_like(either))


def _check_set(name: str, ranked: Array) -> None:
    """Check that ascending rows hold distinct positions, and -1 any number of times.

    Raises
    ------
    ValueError
        If a row holds anything else.
    """
    xp = namespace(ranked)
    if 0 not in ranked.shape and xp.min(ranked) < -1:
        msg = f"`{name}` has the position {int(xp.min(ranked))}, expected 0 and up, or -1 for none"
        raise ValueError(msg)
    if xp.any((ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)):
        msg = f"`{name}` has a position twice among its {ranked.shape[-1]}, expected distinct ones"
        raise ValueError(msg)

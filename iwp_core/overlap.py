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
        Distinct positions in any order; the same leading axes, which are batches.

    Returns
    -------
    array, shape (...)
        In [0, 1], in the library's default floating dtype; 1 for two empty sets.

    Raises
    ------
    TypeError
        If an argument is no integer array, or they are of different libraries.
    ValueError
        If the leading axes differ.

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
    dtype = arange_indices(0, a).dtype
    flat_a, flat_b = (xp.reshape(as_dtype(x, dtype), (math.prod(leading), x.shape[-1])) for x in (a, b))
    shared = [
        xp.sum(as_dtype(locate(xp.sort(flat_b[row, :]), flat_a[row, :])[0], real)) for row in range(math.prod(leading))
    ]
    common = xp.reshape(xp.stack(shared), leading)
    return common / (sum(sizes) - common)

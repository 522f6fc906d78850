"""How far two selections agree."""

from iwp_core._arrays import Array, as_dtype, is_array, namespace

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
    Memory O(M L) a sample.

    Examples
    --------
    >>> import numpy as np
    >>> float(selection_overlap(np.asarray([0, 1, 2]), np.asarray([1, 2, 3])))
    0.5
    """
    for name, indices in (("a", a), ("b", b)):
        if not is_array(indices):
            msg = f"`{name}` is of type {type(indices).__name__}, expected an integer array"
            raise TypeError(msg)
        if not namespace(indices).isdtype(indices.dtype, "integral"):
            msg = f"`{name}` has dtype {indices.dtype}, expected an integer dtype"
            raise TypeError(msg)
    if namespace(a) is not namespace(b):
        msg = f"`b` is an array of {namespace(b).__name__}, expected one of {namespace(a).__name__} like `a`"
        raise TypeError(msg)
    if a.ndim == 0 or b.ndim == 0 or a.shape[:-1] != b.shape[:-1]:
        msg = f"`b` has shape {tuple(b.shape)}, expected the leading axes of `a`, which has shape {tuple(a.shape)}"
        raise ValueError(msg)
    xp = namespace(a)
    real = xp.__array_namespace_info__().default_dtypes()["real floating"]
    if a.shape[-1] == b.shape[-1] == 0:
        return xp.ones(a.shape[:-1], dtype=real)
    shared = as_dtype(xp.sum(as_dtype(a[..., :, None] == b[..., None, :], real), axis=(-2, -1)), real)
    return shared / (a.shape[-1] + b.shape[-1] - shared)

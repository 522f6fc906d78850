"""Plumbing on arrays of any library: namespaces, dtypes, tiles. No mathematics of tokens here."""

from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from array_api_compat import (
    array_namespace,
    device,
    is_array_api_obj,
    is_dask_array,
    is_pydata_sparse_array,
    is_torch_array,
)

from iwp_core._plugins import overridable

__all__ = [
    "Array",
    "accumulation_dtype",
    "arange_indices",
    "as_dtype",
    "device",
    "distinct",
    "index_dtype",
    "is_array",
    "joined",
    "locate",
    "namespace",
    "order_descending",
    "safe_log",
    "scatter",
    "take",
    "tiles",
    "why_unusable",
    "widened",
]

Array = Any
"""An array of any library that follows the Array API standard; the standard names no base class."""

TILE = 1024
"""Tokens converted and centred at a time: no pass holds a second copy of its input, and a tile stays in the cache."""

is_array = is_array_api_obj


def namespace(*arrays: Array) -> ModuleType:
    """Return the Array API namespace that the arrays share."""
    kind = type(arrays[0])
    xp = _NAMESPACES.get(kind)
    if xp is not None and (len(arrays) == 1 or all(type(array) is kind for array in arrays)):
        return xp
    xp = array_namespace(*arrays)
    if len(arrays) == 1:
        _NAMESPACES[kind] = xp
    return xp


_NAMESPACES: dict[type, ModuleType] = {}
"""Asked for once for each type of array: the question comes at every step of a loop."""


def accumulation_dtype(*arrays: Array) -> Any:
    """Return the dtype to compute in: float64 if any array has it, else float32."""
    xp = namespace(*arrays)
    return xp.float64 if any(array.dtype == xp.float64 for array in arrays) else xp.float32


def as_dtype(x: Array, dtype: Any) -> Array:
    """Return an array in a dtype; the array itself where it has it."""
    return x if x.dtype == dtype else namespace(x).astype(x, dtype)


def widened(array: Array) -> Array:
    """Return an array of bfloat16 in float32, exactly, where its library has no such dtype (NumPy with ml_dtypes)."""
    if not is_array(array):
        return array
    kind: Any = type(array.dtype)
    if not _is_bfloat16(kind, array.dtype) or hasattr(namespace(array), "bfloat16"):
        return array
    return namespace(array).astype(array, namespace(array).float32)


@cache
def _is_bfloat16(kind: type, dtype: Any) -> bool:  # noqa: ARG001 - dtypes of two kinds are never compared
    """Ask once for each dtype: NumPy spells a name out anew each time."""
    return str(dtype) == "bfloat16"


def why_unusable(array: Array, *, read: bool = True) -> str | None:
    """Say why something cannot be read as an array, with what to pass instead; None if it can.

    Without `read` nobody looks at its numbers, and it need not have any.
    """
    kind = f"{type(array).__module__.partition('.')[0]}.{type(array).__name__}"
    if not is_array(array):
        return f"is of type {kind}, which has no Array API: convert it first, for example with `numpy.asarray`"
    if is_dask_array(array):
        return "is a lazy array of dask: pass its `compute()`"
    if type(array).__name__ == "MaskedArray":
        return "is a masked array: pass its `data`, and say by `mask=` which tokens are real"
    if read and str(device(array)) == "meta":
        return "is on the device meta and has no data: pass an array that has"
    return _why_not_dense(array, kind)


def _why_not_dense(array: Array, kind: str) -> str | None:
    """Say why an array has no strides, with what to pass instead; None if it has."""
    if is_pydata_sparse_array(array):
        return f"is a sparse array ({kind}): pass its `todense()`"
    if is_torch_array(array) and array.is_nested:
        return "is a nested tensor: pass a padded one, and say by `mask=` which tokens are real"
    if is_torch_array(array) and str(array.layout) != "torch.strided":
        return f"is of layout {array.layout}: pass its `to_dense()`"
    return None


def index_dtype(xp: ModuleType, like: Array) -> Any:
    """Return the integer dtype of indices: int64 wherever the library has it."""
    return xp.__array_namespace_info__().default_dtypes(device=device(like))["indexing"]


def arange_indices(count: int, like: Array) -> Array:
    """Return 0, 1, ..., count - 1 as indices on the device of `like`."""
    xp = namespace(like)
    return xp.arange(count, dtype=index_dtype(xp, like), device=device(like))


def tiles(total: int, size: int = TILE) -> Iterator[slice]:
    """Yield consecutive slices of at most `size` that cover range(total)."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def safe_log(x: Array) -> Array:
    """Return log(x) for x >= 0, with -inf at zero and no warning from any library."""
    xp = namespace(x)
    positive = x > 0
    return xp.where(positive, xp.log(xp.where(positive, x, 1.0)), -xp.inf)


def order_descending(scores: Array) -> Array:
    """Return the positions of a vector from its largest to its smallest entry; ties: lower position first."""
    xp = namespace(scores)
    return xp.argsort(-scores, stable=True)


def locate(positions: Array, sought: Array) -> tuple[Array, Array]:
    """Say for each sought index whether it is among ascending `positions`, and where.

    Returns
    -------
    found : array of bool, shape of `sought`
    slots : array of int, shape of `sought`
        Index into `positions`, meaningful where `found`.
    """
    xp = namespace(positions)
    if positions.shape[0] == 0:
        return xp.zeros_like(sought, dtype=xp.bool), sought
    slots = xp.searchsorted(positions, sought) % positions.shape[0]  # what is past the last one is not the first
    return take(positions, slots) == sought, slots


def distinct(indices: Array) -> Array:
    """Return the different entries of a vector, ascending: `unique_values` without the time that looks at it take."""
    xp = namespace(indices)
    ranked = xp.sort(indices)
    differs = ranked[1:] != ranked[:-1]
    if xp.all(differs):
        return ranked
    return xp.concat([ranked[:1], take(ranked[1:], xp.nonzero(differs)[0])])


def joined(parts: Sequence[Array], axis: int = 0) -> Array:
    """Return arrays one after the other; a single one itself, without a copy."""
    return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(list(parts), axis=axis)


@overridable
def take(x: Array, indices: Array, axis: int = 0) -> Array:
    """Return the entries of an array at indices along an axis, none of them negative."""
    return namespace(x).take(x, indices, axis=axis)


@overridable
def scatter(target: Array, positions: Array, values: Array) -> Array:
    """Return a vector with `values` at ascending `positions`, without the assignment that immutable arrays lack."""
    xp = namespace(target)
    if positions.shape[0] == 0:
        return target
    found, slots = locate(positions, arange_indices(target.shape[0], positions))
    return xp.where(found, take(values, slots), target)

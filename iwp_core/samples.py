"""Checked arrays brought to one shape, sample by sample, and results put together again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, namespace, take, widened
from iwp_core._plugins import is_traced
from iwp_core._validate import check_arrays, check_kind, with_leading

__all__ = ["Sample", "Samples", "check_tokens", "expand_indices"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample's tokens: keys (H, N, D), values (H, N, Dv), queries (Hq, T, D), hidden (N, E), context (Hq, T).

    Where a mask leaves tokens out, only the others are here, and `real` (N,) says where they came from.
    """

    keys: Array
    values: Array
    queries: Array | None
    magnitude_keys: Array
    hidden: Array | None
    context: Array | None
    real: Array | None

    @property
    def count(self) -> int:
        """Number of real tokens."""
        return int(self.keys.shape[-2])


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Checked inputs with their leading axes flattened to one, B, and a head axis always there."""

    xp: ModuleType
    leading: tuple[int, ...]
    headless: bool
    keys: Array
    values: Array
    queries: Array | None
    magnitude_keys: Array
    hidden: Array | None
    context: Array | None
    mask: Array | None

    @property
    def count(self) -> int:
        """Number of tokens N: an int, or what stands for one where a program is traced for any length."""
        count: int = self.keys.shape[-2]
        return count

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays by name, without those that are missing."""
        names = ("keys", "values", "queries", "magnitude_keys", "hidden", "context", "mask")
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    def __iter__(self) -> Iterator[Sample]:
        """Yield one sample after the other."""
        for row in range(self.keys.shape[0]):
            real = None
            if self.mask is not None and not self.xp.all(self.mask[row, :]):
                real = self.xp.nonzero(self.mask[row, :])[0]
            keys = self._tokens(self.keys, row, real)
            yield Sample(
                keys=keys,
                values=self._tokens(self.values, row, real),
                queries=None if self.queries is None else self.queries[row, ...],
                magnitude_keys=(
                    keys if self.magnitude_keys is self.keys else self._tokens(self.magnitude_keys, row, real)
                ),
                hidden=None if self.hidden is None else self._tokens(self.hidden, row, real),
                context=None if self.context is None else self.context[row, ...],
                real=real,
            )

    def _tokens(self, array: Array, row: int, real: Array | None) -> Array:
        one = array[row, ...]
        return one if real is None else take(one, real, axis=one.ndim - 2)

    def join(self, results: Sequence[Array], *, per_head: bool = False) -> Array:
        """Stack one result a sample and give it the leading axes, and the head axis only if the input had one."""
        xp = self.xp
        if per_head and self.headless:
            results = [result[0, ...] for result in results]
        stacked = results[0] if len(results) == 1 else xp.stack(list(results))
        return xp.reshape(stacked, self.leading + tuple(results[0].shape))

    def join_ragged(self, results: Sequence[Array]) -> Array:
        """Do the same with vectors of indices, which are filled with -1 to the length of the longest."""
        xp, longest = self.xp, max(result.shape[0] for result in results)
        filled = [
            result
            if result.shape[0] == longest
            else xp.concat([result, xp.broadcast_to(xp.full_like(result[:1], -1), (longest - result.shape[0],))])
            for result in results
        ]
        return self.join(filled)


def check_tokens(
    keys: Array,
    values: Array,
    queries: Array | None = None,
    *,
    magnitude_keys: Array | None = None,
    hidden: Array | None = None,
    context: Array | None = None,
    mask: Array | None = None,
    finite: bool = True,
    known: bool = True,
) -> Samples:
    """Check the arrays of `select_tokens` and its kin, and bring them to one shape; no number that is not `known`.

    Raises
    ------
    TypeError
        If an argument is no array, is of another library than `keys`, or is not of the kind of dtype it has to be.
    ValueError
        If shapes do not fit each other, an axis is empty, devices differ, a row of `mask` has no real token, or (with
        `finite`) data is not finite.
    NotImplementedError
        If numbers have to be `known` and are not, since a program is traced.
    """
    arrays = {
        "keys": keys,
        "values": values,
        "queries": queries,
        "magnitude_keys": magnitude_keys,
        "hidden": hidden,
        "context": context,
        "mask": mask,
    }
    if known:
        _check_untraced(arrays)
    given = {name: widened(array) for name, array in arrays.items() if array is not None or name in ("keys", "values")}
    check_arrays(given, finite=finite, known=known)
    return _flatten(given)


def _check_untraced(arrays: Mapping[str, Array | None]) -> None:
    """Check that all arrays have numbers.

    Raises
    ------
    NotImplementedError
        If one has none yet, since a program is traced.
    """
    for name, array in arrays.items():
        if array is not None and is_traced(array):
            msg = f"`{name}` is traced, expected an array with numbers: within a program only `select_tokens` answers"
            raise NotImplementedError(msg)


def expand_indices(argument: str, indices: Array, samples: Samples, *, distinct: bool = False) -> Array:
    """Check indices of tokens, (R,) for all samples alike or (..., R), and return them as (B, R).

    Raises
    ------
    TypeError
        If `indices` is no integer array of the library of the tokens.
    ValueError
        If its shape is neither, an index is outside 0..N-1, or (with `distinct`) occurs twice in a sample.
    """
    xp = samples.xp
    check_kind(argument, indices, "integral", ("keys", samples.keys))
    if indices.ndim == 0 or (indices.ndim != 1 and tuple(indices.shape[:-1]) != samples.leading):
        msg = f"`{argument}` has shape {tuple(indices.shape)}, expected (R,) or {with_leading(samples.leading, 'R')}"
        raise ValueError(msg)
    if 0 not in indices.shape and (xp.min(indices) < 0 or xp.max(indices) >= samples.count):
        msg = (
            f"`{argument}` has indices from {int(xp.min(indices))} to {int(xp.max(indices))}, "
            f"expected 0 to {samples.count - 1}: `keys` has {samples.count} tokens"
        )
        raise ValueError(msg)
    if distinct and indices.shape[-1] > 1:
        ranked = xp.sort(indices, axis=-1)
        if xp.any(ranked[..., 1:] == ranked[..., :-1]):
            msg = f"`{argument}` has an index twice among its {indices.shape[-1]}, expected distinct ones"
            raise ValueError(msg)
    rows = samples.keys.shape[0]
    if indices.ndim == 1:
        return xp.broadcast_to(indices, (rows, *indices.shape))
    return xp.reshape(indices, (rows, indices.shape[-1]))


def _flatten(arrays: dict[str, Array]) -> Samples:
    keys = arrays["keys"]
    xp = namespace(keys)
    headless = keys.ndim == 2  # noqa: PLR2004 - keys (N, D)
    leading = tuple(keys.shape[:-3])
    floats = {name: array for name, array in arrays.items() if name != "mask"}
    if accumulation_dtype(*floats.values()) == xp.float64:  # one precision for all, so that no step falls behind
        arrays = arrays | {name: as_dtype(array, xp.float64) for name, array in floats.items()}

    def flat(name: str, core: int) -> Array | None:
        """Return the array with one leading axis and `core` axes behind it; queries may lack the axis of T."""
        array = arrays.get(name)
        if array is None:
            return None
        if headless and name not in ("hidden", "mask"):
            array = array[None, ...]
        rest = tuple(array.shape[len(leading) :])
        missing = (1,) * (core - len(rest))
        return xp.reshape(array, (math.prod(leading), *rest[:-1], *missing, rest[-1]))

    flat_keys = flat("keys", 3)
    magnitude_keys = flat("magnitude_keys", 3)
    return Samples(
        xp=xp,
        leading=leading,
        headless=headless,
        keys=flat_keys,
        values=flat("values", 3),
        queries=flat("queries", 3),
        magnitude_keys=flat_keys if magnitude_keys is None else magnitude_keys,
        hidden=flat("hidden", 2),
        context=flat("context", 2),
        mask=flat("mask", 1),
    )

"""Every check on input arrays and names, with its message; what passes comes out in one shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, device, is_array, namespace
from iwp_core._plugins import overridable

__all__ = ["Samples", "all_finite", "check_kind", "check_name", "check_tokens", "expand_indices"]

KERNELS = ("exponential", "linear")
HEADS = ("mean", "softmax_mean", "softmax_mean_per_query")
SHAPES = {"keys": "(..., H, N, D) or (N, D)", "values": "(..., H, N, Dv) or (N, Dv)"}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample's tokens: keys (H, N, D), values (H, N, Dv), queries (Hq, T, D), hidden (N, E)."""

    keys: Array
    values: Array
    queries: Array | None
    magnitude_keys: Array
    hidden: Array | None


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

    @property
    def count(self) -> int:
        """Number of tokens N."""
        return int(self.keys.shape[-2])

    def __iter__(self) -> Iterator[Sample]:
        """Yield one sample after the other."""
        for row in range(self.keys.shape[0]):
            keys = self.keys[row, ...]
            yield Sample(
                keys=keys,
                values=self.values[row, ...],
                queries=None if self.queries is None else self.queries[row, ...],
                magnitude_keys=keys if self.magnitude_keys is self.keys else self.magnitude_keys[row, ...],
                hidden=None if self.hidden is None else self.hidden[row, ...],
            )

    def join(self, results: Sequence[Array], *, per_head: bool = False) -> Array:
        """Stack one result a sample and give it the leading axes, and the head axis only if the input had one."""
        xp = self.xp
        if per_head and self.headless:
            results = [result[0, ...] for result in results]
        return xp.reshape(xp.stack(list(results)), self.leading + tuple(results[0].shape))


def check_name(argument: str, value: object, known: Sequence[str]) -> None:
    """Check a name.

    Raises
    ------
    ValueError
        If `value` is not among the known names, which the message lists.
    """
    if value not in known:
        msg = f"`{argument}` is {value!r}, expected one of {', '.join(map(repr, known))}"
        raise ValueError(msg)


def check_tokens(
    keys: Array,
    values: Array,
    queries: Array | None = None,
    *,
    magnitude_keys: Array | None = None,
    hidden: Array | None = None,
    finite: bool = True,
) -> Samples:
    """Check the arrays of `select_tokens` and its kin, and bring them to one shape.

    Raises
    ------
    TypeError
        If an argument is no array, is of another library than `keys`, or is not of a real floating dtype.
    ValueError
        If shapes do not fit each other, an axis is empty, devices differ, or (with `finite`) data is not finite.
    """
    arrays = {"keys": keys, "values": values, "queries": queries, "magnitude_keys": magnitude_keys, "hidden": hidden}
    given = {name: array for name, array in arrays.items() if array is not None or name in ("keys", "values")}
    for name, array in given.items():
        check_kind(name, array, "real floating", ("keys", keys))
    _check_shapes(given)
    _check_devices(given)
    if finite:
        for name, array in given.items():
            _check_finite(name, array)
    return _flatten(given)


def expand_indices(argument: str, indices: Array, samples: Samples) -> Array:
    """Check indices of tokens, (R,) for all samples alike or (..., R), and return them as (B, R).

    Raises
    ------
    TypeError
        If `indices` is no integer array of the library of the tokens.
    ValueError
        If its shape is neither, or an index is outside 0..N-1.
    """
    xp = samples.xp
    check_kind(argument, indices, "integral", ("keys", samples.keys))
    if indices.ndim == 0 or (indices.ndim != 1 and tuple(indices.shape[:-1]) != samples.leading):
        msg = f"`{argument}` has shape {tuple(indices.shape)}, expected (R,) or {_with_leading(samples.leading, 'R')}"
        raise ValueError(msg)
    if 0 not in indices.shape and (xp.min(indices) < 0 or xp.max(indices) >= samples.count):
        msg = (
            f"`{argument}` has indices from {int(xp.min(indices))} to {int(xp.max(indices))}, "
            f"expected 0 to {samples.count - 1}: `keys` has {samples.count} tokens"
        )
        raise ValueError(msg)
    rows = samples.keys.shape[0]
    if indices.ndim == 1:
        return xp.broadcast_to(indices, (rows, *indices.shape))
    return xp.reshape(indices, (rows, indices.shape[-1]))


def _with_leading(leading: tuple[int, ...], *rest: object) -> str:
    return "(" + ", ".join(map(str, (*leading, *rest))) + ("," if len(leading) + len(rest) == 1 else "") + ")"


def _library(array: Array) -> str:
    return type(array).__module__.partition(".")[0]


def check_kind(name: str, array: Array, kind: str, like: tuple[str, Array]) -> None:
    """Check that an argument is an array of a kind of dtype, and of the library of another, named, argument.

    Raises
    ------
    TypeError
        If it is not.
    """
    wanted = {"integral": "an integer", "real floating": "a real floating"}[kind]
    if not is_array(array):
        msg = f"`{name}` is of type {type(array).__name__}, expected {wanted} array of a library with the Array API"
        raise TypeError(msg)
    xp = namespace(array)
    other_name, other = like
    if is_array(other) and namespace(other) is not xp:
        msg = f"`{name}` is an array of {_library(array)}, expected one of {_library(other)} like `{other_name}`"
        raise TypeError(msg)
    if not xp.isdtype(array.dtype, kind):
        msg = f"`{name}` has dtype {array.dtype}, expected {wanted} dtype"
        raise TypeError(msg)


def _check_shapes(arrays: dict[str, Array]) -> None:
    keys = tuple(arrays["keys"].shape)
    if len(keys) < 2:  # noqa: PLR2004 - tokens and width
        _shape_error("keys", keys, SHAPES["keys"])
    if keys[-2] == 0:
        msg = f"`keys` has no tokens: shape {keys}, expected {SHAPES['keys']} with N >= 1"
        raise ValueError(msg)
    values = tuple(arrays["values"].shape)
    if len(values) != len(keys) or values[:-1] != keys[:-1]:
        _shape_error("values", values, f"{_with_leading(keys[:-1], 'Dv')}: `keys` has shape {keys}")
    for name, shape in (("keys", keys), ("values", values)):
        if 0 in shape:
            _shape_error(name, shape, f"{SHAPES[name]} with no empty axis")
    if "magnitude_keys" in arrays and tuple(arrays["magnitude_keys"].shape) != keys:
        _shape_error("magnitude_keys", tuple(arrays["magnitude_keys"].shape), f"{keys}, the shape of `keys`")
    if "hidden" in arrays:
        hidden = tuple(arrays["hidden"].shape)
        fits = (*keys[:-3], keys[-2])
        if hidden[:-1] != fits or not hidden or hidden[-1] == 0:
            _shape_error("hidden", hidden, f"{_with_leading(fits, 'E')} with E >= 1: `keys` has shape {keys}")
    if "queries" in arrays:
        _check_queries(tuple(arrays["queries"].shape), keys)


def _check_queries(queries: tuple[int, ...], keys: tuple[int, ...]) -> None:
    leading: tuple[int, ...]
    if len(keys) == 2:  # noqa: PLR2004 - keys (N, D)
        leading, fits = keys[:0], len(queries) in (1, 2)
    else:
        leading = keys[:-3]
        fits = len(queries) in (len(keys) - 1, len(keys)) and queries[: len(leading)] == leading
    if not fits or queries[-1] != keys[-1]:
        allowed = (
            f"({keys[-1]},) or (T, {keys[-1]})"
            if len(keys) == 2  # noqa: PLR2004 - keys (N, D)
            else f"{_with_leading(leading, 'Hq', keys[-1])} or {_with_leading(leading, 'Hq', 'T', keys[-1])}"
        )
        _shape_error("queries", queries, f"{allowed}: `keys` has shape {keys}")
    if len(queries) == len(keys) and queries[-2] == 0:
        _shape_error("queries", queries, "at least one query to average (T >= 1)")
    if len(keys) > 2:  # noqa: PLR2004 - a head axis
        heads, query_heads = keys[-3], queries[len(leading)]
        if query_heads == 0 or query_heads % heads:
            msg = f"`queries` has {query_heads} heads, expected a multiple of the {heads} heads of `keys`"
            raise ValueError(msg)


def _shape_error(name: str, shape: tuple[int, ...], allowed: str) -> None:
    msg = f"`{name}` has shape {shape}, expected {allowed}"
    raise ValueError(msg)


def _check_devices(arrays: dict[str, Array]) -> None:
    home = device(arrays["keys"])
    for name, array in arrays.items():
        if device(array) != home:
            msg = f"`{name}` is on device {device(array)}, expected {home} like `keys`"
            raise ValueError(msg)


def _check_finite(name: str, array: Array) -> None:
    xp = namespace(array)
    if not all_finite(array):
        bad = "NaN" if xp.any(xp.isnan(array)) else "infinity"
        msg = f"`{name}` has {bad} among its {tuple(array.shape)} entries, expected finite numbers"
        raise ValueError(msg)


@overridable
def all_finite(array: Array) -> bool:
    """Return whether an array holds neither NaN nor infinity."""
    xp = namespace(array)
    return bool(xp.all(xp.isfinite(array)))


def _flatten(arrays: dict[str, Array]) -> Samples:
    keys = arrays["keys"]
    xp = namespace(keys)
    headless = keys.ndim == 2  # noqa: PLR2004 - keys (N, D)
    leading = tuple(keys.shape[:-3])
    if accumulation_dtype(*arrays.values()) == xp.float64:  # one precision for all, so that no step falls behind
        arrays = {name: as_dtype(array, xp.float64) for name, array in arrays.items()}
        keys = arrays["keys"]

    def flat(name: str, core: int) -> Array | None:
        """Return the array with one leading axis and `core` axes behind it."""
        array = arrays.get(name)
        if array is None:
            return None
        if headless and name != "hidden":
            array = array[None, ...]
        rest = tuple(array.shape[len(leading) :])
        rows = 1
        for size in leading:
            rows *= size
        missing = (1,) * (core - len(rest))
        return xp.reshape(array, (rows, *rest[: len(rest) - 1], *missing, rest[-1]))

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
    )

"""Every check on input arrays and names, with its message; what passes comes out in one shape."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Real
from types import ModuleType
from typing import Any

from iwp_core._arrays import Array, device, is_array, namespace, why_unusable
from iwp_core._plugins import overridable

__all__ = ["all_finite", "check_arrays", "check_flag", "check_heads", "check_kind", "check_name", "with_leading"]

KERNELS = ("exponential", "linear")
HEADS = ("mean", "softmax_mean", "softmax_mean_per_query", "max")

TOKENS_AT = ("keys", "values", "magnitude_keys", "hidden")
"""Arrays with an axis of tokens, before their last one."""

WIDTHS = (16, 32, 64)
"""Bits of the numbers served: fewer cannot be computed with, and more would be lost on the way."""

SHAPES = {"keys": "(..., H, N, D) or (N, D)", "values": "(..., H, N, Dv) or (N, Dv)"}


def check_name(argument: str, value: object, known: Sequence[str]) -> None:
    """Check a name.

    Raises
    ------
    ValueError
        If `value` is not among the known names, which the message lists.
    """
    if not isinstance(value, str) or value not in known:
        msg = f"`{argument}` is {value!r}, expected one of {', '.join(map(repr, known))}"
        raise ValueError(msg)


def check_heads(heads: object) -> None:
    """Check how heads are pooled: by a name, or by a power mean of an exponent p.

    Raises
    ------
    TypeError
        If `heads` is neither a name nor a real number.
    ValueError
        If the name is unknown, or the number is no finite p >= 1.
    """
    allowed = f"expected one of {', '.join(map(repr, HEADS))}, or a finite number p >= 1"
    if isinstance(heads, str):
        if heads not in HEADS:
            msg = f"`heads` is {heads!r}, {allowed}"
            raise ValueError(msg)
    elif isinstance(heads, bool) or not isinstance(heads, Real):
        msg = f"`heads` is {heads!r} of type {type(heads).__name__}, {allowed}"
        raise TypeError(msg)
    elif not (math.isfinite(heads) and float(heads) >= 1):
        msg = f"`heads` is {heads!r}, {allowed}"
        raise ValueError(msg)


def check_flag(name: str, value: object) -> None:
    """Check an option that is on or off.

    Raises
    ------
    TypeError
        If it is no bool: a number or a name would count as on.
    """
    if not isinstance(value, bool):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}, expected True or False"
        raise TypeError(msg)


def check_arrays(arrays: Mapping[str, Array], *, finite: bool, known: bool = True) -> None:
    """Check the arrays of `select_tokens` and its kin, by name.

    Raises
    ------
    TypeError
        If an argument is no array, is of another library than `keys`, or is not of the kind of dtype it has to be.
    ValueError
        If shapes do not fit each other, an axis is empty, devices differ, no token is real, or (with `finite`) real
        data is not finite.
    """
    for name, array in arrays.items():
        kind = "bool" if name == "mask" else "real floating"
        read = finite or (known and name == "mask")
        check_kind(name, array, kind, ("keys", arrays["keys"]), read=read)
    _check_shapes(arrays)
    if known:  # what is traced has no device yet
        _check_devices(arrays)
    mask = arrays.get("mask")
    if mask is not None and known and not namespace(mask).all(namespace(mask).any(mask, axis=-1)):
        msg = "`mask` has a row without a real token, expected at least one True in each"
        raise ValueError(msg)
    if finite:
        for name, array in arrays.items():
            if name != "mask":
                _check_finite(name, array, mask if name in TOKENS_AT else None)


def with_leading(leading: tuple[int, ...], *rest: object) -> str:
    """Return a shape as text, names of axes behind the leading ones."""
    return "(" + ", ".join(map(str, (*leading, *rest))) + ("," if len(leading) + len(rest) == 1 else "") + ")"


def _library(array: Array) -> str:
    return type(array).__module__.partition(".")[0]


def check_kind(name: str, array: Array, kind: str, like: tuple[str, Array], *, read: bool = True) -> None:
    """Check that an argument is an array of a kind of dtype, and of the library of another, named, argument.

    Without `read` no number is looked at, so that arrays without data, which only have a shape, may pass.

    Raises
    ------
    TypeError
        If it is not.
    """
    wanted = {"integral": "an integer", "real floating": "a real floating", "bool": "a boolean"}[kind]
    unusable = why_unusable(array, read=read)
    if unusable is not None:
        msg = f"`{name}` {unusable}; expected {wanted} array of a library with the Array API"
        raise TypeError(msg)
    xp = namespace(array)
    other_name, other = like
    if is_array(other) and namespace(other) is not xp:
        msg = f"`{name}` is an array of {_library(array)}, expected one of {_library(other)} like `{other_name}`"
        raise TypeError(msg)
    if not _is_of_kind(xp, array.dtype, kind):
        msg = f"`{name}` has dtype {array.dtype}, expected {wanted} dtype"
        raise TypeError(msg)
    if kind == "real floating" and (bits := _bits(xp, array.dtype)) not in WIDTHS:
        msg = f"`{name}` has dtype {array.dtype} of {bits} bits, expected {wanted} dtype of 16, 32 or 64"
        raise TypeError(msg)


@cache
def _bits(xp: ModuleType, dtype: Any) -> int:
    """Return how many bits a number of a floating dtype has."""
    return int(xp.finfo(dtype).bits)


@cache
def _is_of_kind(xp: ModuleType, dtype: Any, kind: str) -> bool:
    try:
        return bool(xp.isdtype(dtype, kind))
    except TypeError:  # NumPy's answer to dtypes that another package has added
        return False


def _check_shapes(arrays: Mapping[str, Array]) -> None:
    keys = tuple(arrays["keys"].shape)
    if len(keys) < 2:  # noqa: PLR2004 - tokens and width
        _shape_error("keys", keys, SHAPES["keys"])
    if keys[-2] == 0:
        msg = f"`keys` has no tokens: shape {keys}, expected {SHAPES['keys']} with N >= 1"
        raise ValueError(msg)
    values = tuple(arrays["values"].shape)
    if len(values) != len(keys) or values[:-1] != keys[:-1]:
        _shape_error("values", values, f"{with_leading(keys[:-1], 'Dv')}: `keys` has shape {keys}")
    for name, shape in (("keys", keys), ("values", values)):
        if 0 in shape:
            _shape_error(name, shape, f"{SHAPES[name]} with no empty axis")
    _check_beside(arrays, keys)
    if "queries" in arrays:
        _check_queries(tuple(arrays["queries"].shape), keys)
    if "context" in arrays and "queries" in arrays:
        _check_context(tuple(arrays["context"].shape), tuple(arrays["queries"].shape), keys)


def _check_beside(arrays: Mapping[str, Array], keys: tuple[int, ...]) -> None:
    """Check the shapes of what may come with the tokens."""
    tokens = (*keys[:-3], keys[-2])
    if "magnitude_keys" in arrays and tuple(arrays["magnitude_keys"].shape) != keys:
        _shape_error("magnitude_keys", tuple(arrays["magnitude_keys"].shape), f"{keys}, the shape of `keys`")
    if "hidden" in arrays:
        hidden = tuple(arrays["hidden"].shape)
        if hidden[:-1] != tokens or not hidden or hidden[-1] == 0:
            _shape_error("hidden", hidden, f"{with_leading(tokens, 'E')} with E >= 1: `keys` has shape {keys}")
    if "mask" in arrays and tuple(arrays["mask"].shape) != tokens:
        _shape_error("mask", tuple(arrays["mask"].shape), f"{with_leading(tokens)}: `keys` has shape {keys}")


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
            else f"{with_leading(leading, 'Hq', keys[-1])} or {with_leading(leading, 'Hq', 'T', keys[-1])}"
        )
        _shape_error("queries", queries, f"{allowed}: `keys` has shape {keys}")
    if len(queries) == len(keys) and queries[-2] == 0:
        _shape_error("queries", queries, "at least one query to average (T >= 1)")
    if len(keys) > 2:  # noqa: PLR2004 - a head axis
        heads, query_heads = keys[-3], queries[len(leading)]
        if query_heads == 0 or query_heads % heads:
            msg = f"`queries` has {query_heads} heads, expected a multiple of the {heads} heads of `keys`"
            raise ValueError(msg)


def _check_context(context: tuple[int, ...], queries: tuple[int, ...], keys: tuple[int, ...]) -> None:
    count = queries[-2] if len(queries) == len(keys) else 1
    fits = (*keys[:-3], *(() if len(keys) == 2 else (queries[len(keys) - 3],)), count)  # noqa: PLR2004 - keys (N, D)
    if context != fits:
        _shape_error("context", context, f"{with_leading(fits)}, one number a query: `queries` has shape {queries}")


def _shape_error(name: str, shape: tuple[int, ...], allowed: str) -> None:
    msg = f"`{name}` has shape {shape}, expected {allowed}"
    raise ValueError(msg)


def _check_devices(arrays: Mapping[str, Array]) -> None:
    home = device(arrays["keys"])
    for name, array in arrays.items():
        if (place := device(array)) != home:
            msg = f"`{name}` is on device {place}, expected {home} like `keys`"
            raise ValueError(msg)


def _check_finite(name: str, array: Array, mask: Array | None) -> None:
    xp = namespace(array)
    if mask is not None and not all_finite(array):  # what stands at places without a token does not count
        heads = array.ndim - mask.ndim - 1
        real = xp.reshape(mask, (*mask.shape[:-1], *(1,) * heads, mask.shape[-1], 1))
        array = xp.where(real, array, xp.zeros_like(array))
    if name == "context":  # nothing outside of the candidates has the log-sum-exp -inf
        array = xp.where(array == -xp.inf, xp.zeros_like(array), array)
    if not all_finite(array):
        bad = "NaN" if xp.any(xp.isnan(array)) else "infinity"
        allowed = "finite numbers, or -inf" if name == "context" else "finite numbers"
        msg = f"`{name}` has {bad} among its {tuple(array.shape)} entries, expected {allowed}"
        raise ValueError(msg)


@overridable
def all_finite(array: Array) -> bool:
    """Return whether an array holds neither NaN nor infinity."""
    xp = namespace(array)
    return bool(xp.all(xp.isfinite(array)))

"""Checks of the arguments of methods: arrays, by the letters of their axes, and numbers."""

from numbers import Integral, Real

from iwp_core._arrays import Array, device, namespace
from iwp_core._validate import all_finite, check_kind

__all__ = ["check_arrays", "check_count", "check_exactly_one", "check_indices", "check_number"]


def check_arrays(arrays: dict[str, tuple[Array, str]]) -> dict[str, int]:
    """Check floating-point arrays of one library and device, and return the sizes of their axes.

    Parameters
    ----------
    arrays : dict
        For each argument, its array and the letters of its axes, such as ``"H N"``. Equal letters stand for equal
        sizes.

    Returns
    -------
    dict of str to int
        The size of each letter.

    Raises
    ------
    TypeError
        If an argument is not an array, is of another library than the first, or has no real floating-point dtype.
    ValueError
        If a shape does not match its letters or the arrays before it, an axis is empty, devices differ, or an entry is
        not finite.
    """
    sizes: dict[str, int] = {}
    owners: dict[str, str] = {}
    first = next(iter(arrays))
    for name, (array, letters) in arrays.items():
        check_kind(name, array, "real floating", (first, arrays[first][0]))
        axes = letters.split()
        shape = tuple(array.shape)
        if len(shape) != len(axes) or 0 in shape:
            msg = f"`{name}` has shape {shape}, expected ({', '.join(axes)}) with no empty axis"
            raise ValueError(msg)
        for axis, size in zip(axes, shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                msg = (
                    f"`{name}` has shape {shape}, expected {axis} = {sizes[axis]} like `{owners[axis]}` in ({letters})"
                )
                raise ValueError(msg)
            owners.setdefault(axis, name)
        if device(array) != device(arrays[first][0]):
            msg = f"`{name}` is on device {device(array)}, expected {device(arrays[first][0])} like `{first}`"
            raise ValueError(msg)
        if not all_finite(array):
            msg = f"`{name}` has NaN or infinity among its {shape} entries, expected finite numbers"
            raise ValueError(msg)
    return sizes


def check_indices(name: str, indices: Array, total: int, like: tuple[str, Array]) -> None:
    """Check that an argument holds distinct, ascending indices of an axis with `total` entries.

    Raises
    ------
    TypeError
        If it is not an integer array of the same library as the array in `like`.
    ValueError
        If it is not one-dimensional, is empty or not ascending, or has an index out of range.
    """
    check_kind(name, indices, "integral", like)
    xp = namespace(indices)
    if indices.ndim != 1 or 0 in indices.shape:
        msg = f"`{name}` has shape {tuple(indices.shape)}, expected (N,) with N >= 1"
        raise ValueError(msg)
    inside = int(indices[0]) >= 0 and int(indices[-1]) < total
    if not inside or not bool(xp.all(indices[1:] > indices[:-1])):
        msg = f"`{name}` are not ascending, distinct indices from 0 to {total - 1}"
        raise ValueError(msg)


def check_count(name: str, value: object, least: int, most: int | None = None) -> int:
    """Check an integer and return it.

    Raises
    ------
    TypeError
        If it is not an integer. Booleans are refused too.
    ValueError
        If it is out of range.
    """
    allowed = f"expected an integer >= {least}" if most is None else f"expected an integer from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}, {allowed}"
        raise TypeError(msg)
    if int(value) < least or (most is not None and int(value) > most):
        msg = f"`{name}` is {value!r}, {allowed}"
        raise ValueError(msg)
    return int(value)


def check_number(name: str, value: object, least: float, most: float) -> float:
    """Check a real number from `least` to `most`, and return it.

    Raises
    ------
    TypeError
        If it is not a real number. Booleans are refused too.
    ValueError
        If it is out of range or NaN.
    """
    allowed = f"expected a number from {least:g} to {most:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}, {allowed}"
        raise TypeError(msg)
    if not least <= float(value) <= most:
        msg = f"`{name}` is {value!r}, {allowed}"
        raise ValueError(msg)
    return float(value)


def check_exactly_one(**given: object) -> None:
    """Check that exactly one of two arguments is given.

    Raises
    ------
    ValueError
        If both or neither are given.
    """
    if sum(value is not None for value in given.values()) != 1:
        names = " and ".join(f"`{name}`" for name in given)
        values = ", ".join(f"{name}={value!r}" for name, value in given.items())
        msg = f"{names} are {values}, expected exactly one of them"
        raise ValueError(msg)

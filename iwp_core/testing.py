"""A conformance suite for backends: small inputs to every overridable function, and the reference's answers.

Needs no array library of its own: a backend says how nested lists become its arrays.

Examples
--------
>>> import numpy as np
>>> for case in conformance_cases(np.asarray):  # NumPy has no backend, so the reference is held to itself
...     check_case(case)
"""

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core._plugins import use_backend
from iwp_core.budget import Tolerance
from iwp_core.comparison import Duplication
from iwp_core.kernels import FUNCTIONS, Rule
from iwp_core.samples import check_tokens
from iwp_core.similarity import Cosine, Gaussian, columns_of
from iwp_core.strategies import MMR, PCMMR, TopK

__all__ = ["Case", "check_case", "conformance_cases"]

HEADS, QUERY_HEADS, TOKENS, WIDTH = 2, 4, 40, 16


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of an overridable function.

    Attributes
    ----------
    name : str
        For test ids.
    function : callable
        One of `iwp_core.kernels.FUNCTIONS`.
    arguments, options : tuple, dict
        What it is called with.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


def conformance_cases(
    asarray: Callable[[Any], Array], *, functions: Collection[str] = tuple(FUNCTIONS), seed: int = 0
) -> Iterator[Case]:
    """Yield calls of every overridable function: all metrics, both kernels, ties, zeros, norms out of range.

    Parameters
    ----------
    asarray : callable
        Turns nested lists of floats into an array of the backend's library, in the dtype to be tested.
    functions : collection of str, optional
        Names of the functions to be called. Default: all of `iwp_core.kernels.FUNCTIONS`.
    seed : int, default 0
        Of the numbers drawn.

    Yields
    ------
    Case

    Examples
    --------
    >>> import numpy as np
    >>> {case.function.__name__ for case in conformance_cases(np.asarray)} == set(FUNCTIONS)
    True
    """
    draw = random.Random(seed)
    keys, values = _tokens(draw, HEADS, TOKENS, WIDTH), _tokens(draw, HEADS, TOKENS, WIDTH)
    for tokens in (keys, values):
        for head in tokens:
            head[7], head[9] = head[3], head[3]
    for head in values:
        head[5] = [0.0] * WIDTH
    queries = asarray(_tokens(draw, 1, QUERY_HEADS, WIDTH)[0])
    arrays = asarray(keys), asarray(values), queries
    groups: dict[tuple[str, ...], Callable[[], Iterator[Case]]] = {
        ("all_finite", "largest", "scatter", "take"): lambda: _vectors(asarray, arrays[0]),
        ("log_norm", "hash_rows", "gaussian_rows"): lambda: _rows(asarray, keys, arrays),
        ("log_magnitude",): lambda: _magnitudes(arrays),
        ("duplication_block", "progressive_chunked_mmr"): lambda: _duplications(arrays),
        ("select_batch",): lambda: _batches(arrays),
    }
    for names, cases in groups.items():
        if set(names) & set(functions):
            yield from (case for case in cases() if case.function.__name__ in functions)


def check_case(case: Case, *, tolerance: float = 1e-5) -> None:
    """Hold the backend of a case's arrays to the reference.

    Parameters
    ----------
    case : Case
    tolerance : float, default 1e-5
        Largest difference of a number of 1, and relative difference of larger ones. Integers, booleans, and which
        tokens are chosen have to be equal.

    Raises
    ------
    AssertionError
        If the answers differ; the message names the case.

    Examples
    --------
    >>> import numpy as np
    >>> check_case(next(conformance_cases(np.asarray)))
    """
    ours = case.function(*case.arguments, **case.options)
    with use_backend("reference"):
        reference = case.function(*case.arguments, **case.options)
    if not _agree(case.function.__name__, ours, reference, tolerance):
        msg = f"{case.name}: the backend answers {ours}, the reference {reference}"
        raise AssertionError(msg)


def _agree(name: str, ours: Any, reference: Any, tolerance: float) -> bool:
    if isinstance(reference, bool):
        return bool(ours) is reference
    xp = namespace(reference)
    if tuple(ours.shape) != tuple(reference.shape) or (ours.dtype != reference.dtype and name != "hash_rows"):
        return False
    if name == "hash_rows":  # their values are the backend's own; which are equal is not
        return bool(xp.all((ours[:, None] == ours[None, :]) == (reference[:, None] == reference[None, :])))
    if name == "progressive_chunked_mmr":
        return bool(xp.all(xp.sort(ours) == xp.sort(reference)))
    if not xp.isdtype(reference.dtype, "real floating"):
        return bool(xp.all(ours == reference))
    finite = xp.abs(reference) < xp.inf
    zero = xp.zeros_like(reference)
    difference = xp.abs(xp.where(finite, ours, zero) - xp.where(finite, reference, zero))
    near = difference <= tolerance * xp.maximum(xp.abs(xp.where(finite, reference, zero)), xp.ones_like(reference))
    return bool(xp.all(xp.where(finite, near, ours == reference)))


def _tokens(draw: random.Random, heads: int, count: int, width: int) -> list[list[list[float]]]:
    return [[[draw.gauss(0.0, 1.0) for _ in range(width)] for _ in range(count)] for _ in range(heads)]


def _vectors(asarray: Callable[[Any], Array], keys: Array) -> Iterator[Case]:
    """Yield cases of functions of vectors."""
    infinity = float("inf")
    for text, entries in (("finite", [1.0, 2.0]), ("NaN", [1.0, float("nan")]), ("infinities", [infinity, -infinity])):
        yield Case(name=f"all_finite, {text}", function=FUNCTIONS["all_finite"], arguments=(asarray(entries),))
    ties = asarray([0.0, -infinity, 1.0, 1.0, -infinity, 0.5])
    yield Case(name="largest, ties", function=FUNCTIONS["largest"], arguments=(ties, 4))
    somewhere = arange_indices(TOKENS // 3, keys) * 3 + 1
    target, fresh = keys[0, :, 0], keys[1, : somewhere.shape[0], 0]
    yield Case(name="scatter", function=FUNCTIONS["scatter"], arguments=(target, somewhere, fresh))
    yield Case(name="take", function=FUNCTIONS["take"], arguments=(keys, somewhere), options={"axis": 1})


def _rows(asarray: Callable[[Any], Array], keys: list[list[list[float]]], arrays: tuple[Array, ...]) -> Iterator[Case]:
    """Yield cases of functions of rows."""
    for factor in (1.0, 1e-30, 1e30):
        scaled = asarray([[[x * factor for x in row] for row in head] for head in keys])
        yield Case(name=f"log_norm, {factor:g}", function=FUNCTIONS["log_norm"], arguments=(scaled,))
    yield Case(name="log_norm, zeros", function=FUNCTIONS["log_norm"], arguments=(arrays[1],))
    yield Case(
        name="hash_rows", function=FUNCTIONS["hash_rows"], arguments=(arrays[0], arange_indices(TOKENS, arrays[0]))
    )
    gaussian, cosine = Gaussian(arrays[0]), Cosine(arrays[1])
    for divisors in (None, cosine.divisors):
        yield Case(
            name=f"gaussian_rows, {'no' if divisors is None else 'with'} divisors",
            function=FUNCTIONS["gaussian_rows"],
            arguments=(arrays[0], gaussian.center, divisors),
            options={"scale": gaussian.scale},
        )


def _magnitudes(arrays: tuple[Array, ...]) -> Iterator[Case]:
    """Yield cases of the magnitude: all metrics, kernels and ways of pooling heads."""
    for metric in ("dual", "kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm"):
        for kernel in ("exponential", "linear"):
            for heads in ("mean", "softmax_mean", "max", 2.0):
                options = {"metric": metric, "kernel": kernel, "heads": heads}
                name = f"log_magnitude, {metric}, {kernel}, {heads}"
                yield Case(name=name, function=FUNCTIONS["log_magnitude"], arguments=arrays, options=options)
    options = {"metric": "dual", "kernel": "exponential", "heads": "max", "context": arrays[2][:, 0]}
    yield Case(name="log_magnitude, context", function=FUNCTIONS["log_magnitude"], arguments=arrays, options=options)


def _duplications(arrays: tuple[Array, ...]) -> Iterator[Case]:
    """Yield cases of blocks of pairs, and of the whole algorithm over them."""
    keys, values, queries = arrays
    scores = FUNCTIONS["log_magnitude"](keys, values, queries, metric="dual", kernel="exponential", heads="mean")
    for metric in ("dual", "value", "key", "kernel_key"):
        for kernel in ("exponential", "linear"):
            duplication = Duplication(keys, values, metric=metric, kernel=kernel)
            gaussian = isinstance(duplication.factors[0], Gaussian)
            first, *rest = duplication.everyone.parts
            some = [part[:, 3:20, :] for part in (columns_of(first) if gaussian else first, *rest)]
            sides = tuple(side for pair in zip((first, *rest), some, strict=True) for side in pair)
            yield Case(
                name=f"duplication_block, {metric}, {kernel}",
                function=FUNCTIONS["duplication_block"],
                arguments=sides,
                options={"gaussian": gaussian},
            )
            yield Case(
                name=f"progressive_chunked_mmr, {metric}, {kernel}",
                function=FUNCTIONS["progressive_chunked_mmr"],
                arguments=(scores, duplication, [2, 4, 8, 3]),
                options={"penalty": 5.0, "floor": 0.01, "exponent": 2},
            )


def _batches(arrays: tuple[Array, ...]) -> Iterator[Case]:
    """Yield cases of whole selections."""
    keys, values, queries = arrays
    single = queries[:, None, :]
    xp = namespace(keys)
    mask = keys[0, :, 0] > xp.min(keys[0, :, 0]) / 2
    batch = (xp.stack([x, xp.flip(x, axis=0)]) for x in (keys, values, single))
    inputs = {
        "all real": check_tokens(keys, values, single),
        "some real": check_tokens(keys, values, single, mask=mask),
        "two lengths": check_tokens(*batch, mask=xp.stack([mask, keys[1, :, 0] > 0])),
    }
    for strategy, heads in ((PCMMR(), "mean"), (MMR(), "softmax_mean"), (TopK(), "max")):
        rule = Rule(strategy=strategy, magnitude="dual", similarity="dual", kernel="exponential", heads=heads)
        calls = ((9, "all real"), (0.5, "some real"), (0.4, "two lengths"), (Tolerance(0.3), "all real"))
        for budget, which in calls:
            name = f"select_batch, {type(strategy).__name__}, {budget}, {which}"
            arguments = (inputs[which].keys, inputs[which], budget, rule)
            yield Case(name=name, function=FUNCTIONS["select_batch"], arguments=arguments, options={"check": True})

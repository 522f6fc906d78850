"""Every error of the contract: before any work, naming the argument, what it was and what is allowed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import iwp_core
from tests.libraries import Array, Library
from tests.strategies import sample, shaped, spoiled

H, HQ, N, D, DV, E = 2, 4, 12, 4, 3, 7


def good() -> dict[str, Any]:
    """Arguments of a call that works: 2 heads, 4 query heads, 12 tokens, widths 4 and 3."""
    tokens = sample(0)
    return {
        "keys": tokens.keys,
        "values": tokens.values,
        "queries": tokens.queries,
        "budget": 5,
        "hidden": tokens.hidden,
        "magnitude_keys": tokens.keys,
    }


def call(**changes: object) -> Array:
    """Call `select_tokens` with the good arguments, some of them changed."""
    arguments = good() | changes
    positional = [arguments.pop(name) for name in ("keys", "values", "queries", "budget")]
    return iwp_core.select_tokens(*positional, **arguments)


class Case(NamedTuple):
    """A changed argument, the error it must raise, and what the message must say besides naming the argument."""

    argument: str
    change: dict[str, Any]
    error: type[Exception] | tuple[type[Exception], ...]
    says: tuple[str, ...]


def case(
    argument: str, given: object, error: type[Exception] | tuple[type[Exception], ...], *says: str, **others: object
) -> Case:
    """Change one argument, and others that have to fit it."""
    return Case(argument, {argument: given, **others}, error, says)


NAN, INF = float("nan"), float("inf")
SHAPES = [
    case("keys", shaped(D), ValueError, "(4,)", "N, D"),
    case("values", shaped(DV), ValueError, "(3,)", "(2, 12, Dv)"),
    case("keys", np.asarray(1.0), ValueError, "()", "N, D"),
    case("values", shaped(N, DV), ValueError, "(12, 3)"),
    case("values", shaped(H, N - 1, DV), ValueError, "(2, 11, 3)", "12"),
    case("values", shaped(H + 1, N, DV), ValueError, "(3, 12, 3)", "2"),
    case("values", shaped(5, H, N, DV), ValueError, "(5, 2, 12, 3)"),
    case("queries", shaped(HQ, D + 1), ValueError, "5", "4"),
    case("queries", shaped(3, D), ValueError, "3", "multiple", "2"),
    case("queries", shaped(1, D), ValueError, "1", "multiple", "2"),
    case("queries", shaped(D), ValueError, "(4,)"),
    case("queries", shaped(1, 1, HQ, D), ValueError, "(1, 1, 4, 4)"),
    case("queries", shaped(HQ, 0, D), ValueError, "(4, 0, 4)"),
    case("queries", shaped(0, D), ValueError, "0", "2"),
    case("magnitude_keys", shaped(H, N - 1, D), ValueError, "(2, 11, 4)", "(2, 12, 4)"),
    case("magnitude_keys", shaped(N, D), ValueError, "(12, 4)", "(2, 12, 4)"),
    case("magnitude_keys", shaped(H, N, D + 1), ValueError, "(2, 12, 5)", "(2, 12, 4)"),
    case("hidden", shaped(N - 1, E), ValueError, "(11, 7)", "12", similarity="hidden"),
    case("hidden", shaped(H, N, E), ValueError, "(2, 12, 7)", similarity="hidden"),
    case("hidden", shaped(N), ValueError, "(12,)", similarity="hidden"),
    case("hidden", None, (TypeError, ValueError), "None", "(..., N, E)", similarity="hidden"),
    case("queries", None, TypeError, "None", "(..., Hq, D)"),
    case("keys", shaped(H, 0, D), ValueError, "(2, 0, 4)", values=shaped(H, 0, DV), magnitude_keys=None, hidden=None),
    case("keys", shaped(0, N, D), ValueError, "(0, 12, 4)", values=shaped(0, N, DV), magnitude_keys=None),
    case("keys", shaped(H, N, 0), ValueError, "(2, 12, 0)", queries=shaped(HQ, 0), magnitude_keys=None),
    case("values", shaped(H, N, 0), ValueError, "(2, 12, 0)"),
]
DATA = [
    case("keys", spoiled(NAN, H, N, D), ValueError, "NaN", "finite"),
    case("keys", spoiled(INF, H, N, D), ValueError, "infinit", "finite"),
    case("values", spoiled(NAN, H, N, DV), ValueError, "NaN", "finite"),
    case("values", spoiled(-INF, H, N, DV), ValueError, "infinit", "finite"),
    case("queries", spoiled(NAN, HQ, D), ValueError, "NaN", "finite"),
    case("queries", spoiled(INF, HQ, D), ValueError, "infinit", "finite"),
    case("magnitude_keys", spoiled(NAN, H, N, D), ValueError, "NaN", "finite"),
    case("hidden", spoiled(NAN, N, E), ValueError, "NaN", "finite", similarity="hidden"),
]
BUDGETS = [
    case("budget", 0, ValueError, "0", ">= 1", "(0, 1]"),
    case("budget", -3, ValueError, "-3", ">= 1", "(0, 1]"),
    case("budget", 0.0, ValueError, "0.0", ">= 1", "(0, 1]"),
    case("budget", -0.5, ValueError, "-0.5", ">= 1", "(0, 1]"),
    case("budget", 1.5, ValueError, "1.5", ">= 1", "(0, 1]"),
    case("budget", 2.0, ValueError, "2.0", ">= 1", "(0, 1]"),
    case("budget", NAN, ValueError, "nan", ">= 1", "(0, 1]"),
    case("budget", INF, ValueError, "inf", ">= 1", "(0, 1]"),
    case("budget", True, TypeError, "True", ">= 1", "(0, 1]"),
    case("budget", np.True_, TypeError, "True", ">= 1", "(0, 1]"),
    case("budget", "0.5", TypeError, "'0.5'", ">= 1", "(0, 1]"),
    case("budget", None, TypeError, "None", ">= 1", "(0, 1]"),
    case("budget", 1j, TypeError, "1j", ">= 1", "(0, 1]"),
    case("budget", [5], TypeError, "[5]", ">= 1", "(0, 1]"),
]
NAMES = [
    case("magnitude", "loudness", ValueError, "'loudness'", *("'dual'", "'kernel'", "'gradient_norm'", "'key_norm'")),
    case("magnitude", "hidden", ValueError, "'hidden'", "'raw_key_norm'", "'value_norm'"),
    case("magnitude", None, ValueError, "None", "'dual'"),
    case("magnitude", np.asarray(["dual", "kernel"]), ValueError, "array", "'dual'"),
    case("similarity", "cosine", ValueError, "'cosine'", "'dual'", "'value'", "'hidden'", "'key'", "'kernel_key'"),
    case("similarity", "value_norm", ValueError, "'value_norm'", "'kernel_key'"),
    case("kernel", "softmax", ValueError, "'softmax'", "'exponential'", "'linear'"),
    case("heads", "most", ValueError, "'most'", "'mean'", "'softmax_mean'", "'softmax_mean_per_query'"),
]
TYPES = [
    case("keys", [[1.0, 2.0]], TypeError, "list", "array"),
    case("values", "values", TypeError, "str", "array"),
    case("queries", 3.0, TypeError, "float", "array"),
    case("keys", None, TypeError, "None", "array"),
    case("magnitude_keys", [[1.0]], TypeError, "list", "array"),
    case("hidden", [[1.0]], TypeError, "list", "array", similarity="hidden"),
    case("keys", np.ones((H, N, D), dtype=np.int64), TypeError, "int64", "float"),
    case("values", np.ones((H, N, DV), dtype=np.int32), TypeError, "int32", "float"),
    case("queries", np.ones((HQ, D), dtype=np.bool_), TypeError, "bool", "float"),
    case("queries", np.ones((HQ, D), dtype=np.complex128), TypeError, "complex128", "float"),
    case("magnitude_keys", np.ones((H, N, D), dtype=np.uint8), TypeError, "uint8", "float"),
    case("hidden", np.ones((N, E), dtype=np.complex64), TypeError, "complex64", "float", similarity="hidden"),
    case("strategy", "pcmmr", TypeError, "'pcmmr'", "select"),
    case("strategy", None, TypeError, "None", "select"),
    case("strategy", iwp_core.PCMMR, TypeError, "PCMMR", "select"),
]
CASES = SHAPES + DATA + BUDGETS + NAMES + TYPES


def label(wrong: Case) -> str:
    """Name a case by its argument and what was given for it."""
    given = wrong.change[wrong.argument]
    shown = f"{given.dtype}{given.shape}" if isinstance(given, np.ndarray) else repr(given)
    return f"{wrong.argument}={shown}-{wrong.says[0]}".replace(" ", "")


@pytest.mark.parametrize("wrong", CASES, ids=label)
def test_a_wrong_argument_is_named_with_what_it_was_and_what_is_allowed(wrong: Case) -> None:
    """One argument at a time is spoiled in a call that works otherwise."""
    with pytest.raises(wrong.error) as caught:
        call(**wrong.change)

    message = str(caught.value)
    assert f"`{wrong.argument}`" in message
    assert [part for part in wrong.says if part not in message] == []


def test_the_call_that_the_cases_spoil_works_by_itself() -> None:
    """Otherwise the table above would prove nothing, and forty cases are what the contract is worth."""
    assert call(similarity="hidden").shape == (5,)
    assert len(CASES) >= 40


@pytest.mark.parametrize("argument", ["values", "queries", "magnitude_keys", "hidden"])
def test_arrays_of_two_libraries_are_a_type_error_naming_both(argument: str) -> None:
    """Nothing is converted behind the caller's back."""
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")

    with pytest.raises(TypeError) as caught:
        call(**{argument: strict.asarray(good()[argument]), "similarity": "hidden"})

    message = str(caught.value)
    assert f"`{argument}`" in message
    assert "array_api_strict" in message
    assert "numpy" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_data_that_are_not_finite_are_refused_in_every_library(xp: Library, value: float, dtype: str) -> None:
    """Also in the last token of the last head, and also where a sum over all would overflow to infinity anyway."""
    tokens = sample(1)
    tokens.values[-1, -1, -1] = value

    with pytest.raises(ValueError, match="`values`"):
        iwp_core.select_tokens(*xp.arrays(tokens, dtype), 5)


def test_large_finite_data_are_no_infinity(xp: Library) -> None:
    """A check that sums would call 10^38 infinite."""
    tokens = sample(2)
    tokens.values[:] = 3e38

    assert iwp_core.select_tokens(*xp.arrays(tokens, "float32"), 5).shape == (5,)


def test_unvalidated_shapes_are_refused_all_the_same() -> None:
    """validate=False skips what reads data, never what reads shapes, names and types."""
    for wrong in SHAPES + BUDGETS + NAMES + TYPES:
        with pytest.raises(wrong.error):
            call(**wrong.change, validate=False)


def test_unvalidated_data_are_not_read_for_a_check() -> None:
    """The caller who knows that the data are finite saves the pass over them."""
    kept = call(values=spoiled(NAN, H, N, DV), validate=False)

    assert len(kept) == 5


class Untouchable(np.ndarray):
    """An array whose numbers must not be used in any computation."""

    def __array_ufunc__(self, *_: object, **__: object) -> object:
        """Refuse to compute."""
        msg = "work was done before the arguments were checked"
        raise AssertionError(msg)


@pytest.mark.parametrize("wrong", SHAPES + BUDGETS + NAMES, ids=label)
def test_errors_come_before_any_work(wrong: Case) -> None:
    """No arithmetic touches the arrays of a call that is going to be refused for a shape, a budget or a name."""
    arguments = good() | wrong.change
    touched = {
        name: value.view(Untouchable) if isinstance(value, np.ndarray) else value for name, value in arguments.items()
    }

    with pytest.raises(wrong.error):
        # Without the check of the data, which computes by design.
        call(**touched, validate=False)


def test_arrays_on_different_devices_are_refused() -> None:
    """array-api-strict pretends to have several: no step may begin on either."""
    strict = pytest.importorskip("array_api_strict", reason="NumPy has one device only")
    keys, queries = strict.ones((2, 5, 4)), strict.ones((2, 4))
    values = strict.ones((2, 5, 4), device=strict.Device("device1"))

    with pytest.raises(ValueError, match=r"`values` is on device .*device1.*, expected .*CPU_DEVICE.* like `keys`"):
        iwp_core.select_tokens(keys, values, queries, 2)

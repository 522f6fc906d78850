"""What holds for every public function of `iwp_core.methods`: its documentation, its errors, its arrays."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from iwp_core import methods
from tests.libraries import Library, load
from tests.methods.calls import CALLS, KEEPING, M, N

FUNCTIONS = sorted(name for name in methods.__all__ if inspect.isfunction(getattr(methods, name)))
ARGUMENTS = [(name, argument) for name, call in sorted(CALLS.items()) for argument in call.arrays]
FLOATING = [(name, argument) for name, argument in ARGUMENTS if CALLS[name].arrays[argument].dtype.kind == "f"]


def arrays_of(result: Any, xp: Library) -> list[Any]:
    """Return what a function returned as NumPy arrays."""
    if isinstance(result, methods.MergedTokens):
        return [xp.numpy(x) for x in (result.kept, result.tokens, result.sizes, result.assignment)]
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(x) if isinstance(x, list | int | float) else xp.numpy(x) for x in parts]


def kept_of(result: Any, xp: Library) -> Any:
    """Return the kept indices of a result."""
    return xp.numpy(result.kept if isinstance(result, methods.MergedTokens) else result)


def test_every_function_on_arrays_has_a_call() -> None:
    """A new function cannot be forgotten here."""
    assert set(FUNCTIONS) - {"dart_quota", "sparsevlm_counts"} == set(CALLS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_documents_parameters_result_errors(name: str) -> None:
    """The sections of numpydoc in their order, and every parameter named."""
    documentation = inspect.getdoc(getattr(methods, name)) or ""
    sections = ["Parameters", "Returns", "Raises"]

    places = [documentation.find(f"{section}\n{'-' * len(section)}\n") for section in sections]

    assert -1 not in places
    assert places == sorted(places)
    parameters = documentation[places[0] : places[1]]
    assert [p for p in inspect.signature(getattr(methods, name)).parameters if p not in parameters] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_takes_arrays_by_position_and_options_by_name(name: str) -> None:
    """An option cannot be mistaken for an array; only a budget may be either."""
    parameters = inspect.signature(getattr(methods, name)).parameters.values()
    kinds = {p.name: p.kind for p in parameters if p.name != "budget"}

    assert set(kinds.values()) <= {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(("name", "argument"), FLOATING)
def test_every_array_has_to_be_finite(name: str, argument: str) -> None:
    """A NaN is a ValueError that names the argument."""
    xp = load("numpy")
    bad = CALLS[name].arrays[argument].copy()
    bad.reshape(-1)[0] = np.nan

    with pytest.raises(ValueError, match=f"`{argument}` has NaN"):
        CALLS[name].run(name, xp, **{argument: bad})


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_array_has_its_rank(name: str, argument: str) -> None:
    """One axis too many is a ValueError that names the argument and what is expected."""
    xp = load("numpy")

    with pytest.raises(ValueError, match=rf"`{argument}` has shape \(1, .*expected"):
        CALLS[name].run(name, xp, **{argument: CALLS[name].arrays[argument][None, ...]})


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_array_is_an_array(name: str, argument: str) -> None:
    """Nested lists are a TypeError that names the argument."""
    xp = load("numpy")

    with pytest.raises(TypeError, match=rf"`{argument}` is of type (builtins\.)?list"):
        CALLS[name].run(name, xp, **{argument: CALLS[name].arrays[argument].tolist()})


@pytest.mark.parametrize(("name", "argument"), FLOATING)
def test_every_array_of_numbers_is_floating(name: str, argument: str) -> None:
    """Integers are a TypeError that names the argument."""
    xp = load("numpy")

    with pytest.raises(TypeError, match=f"`{argument}` has dtype int64"):
        CALLS[name].run(name, xp, **{argument: CALLS[name].arrays[argument].astype(np.int64)})


@pytest.mark.parametrize("name", KEEPING)
def test_every_budget_is_held(name: str) -> None:
    """M distinct tokens of a rule with a count, at most M of one whose count follows from its arguments."""
    xp = load("numpy")

    kept = kept_of(CALLS[name].run(name, xp), xp)

    assert kept.dtype == np.int64
    assert len(set(kept.tolist())) == kept.size
    assert set(kept.tolist()) <= set(range(N))
    assert kept.size <= M if name in {"dart", "prumerge", "holov_order"} else kept.size == M
    if not name.endswith("_order") and name != "prumerge":
        assert kept.tolist() == sorted(kept.tolist())


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
def test_every_function_gives_the_same_on_every_library(name: str, library: str) -> None:
    """In float64 NumPy, PyTorch and the strict arrays agree, and results are arrays of the library."""
    reference, xp = load("numpy"), load(library)

    expected = arrays_of(CALLS[name].run(name, reference), reference)
    found = arrays_of(CALLS[name].run(name, xp), xp)

    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_function_takes_half_precision(name: str, dtype: str) -> None:
    """Half-precision arrays give finite results, and merged tokens in their own dtype."""
    xp = load("torch")

    result = CALLS[name].run(name, xp, dtype=dtype)

    assert all(np.isfinite(x).all() for x in arrays_of(result, xp))
    if isinstance(result, methods.MergedTokens):
        assert str(result.tokens.dtype) == f"torch.{dtype}"


@pytest.mark.parametrize("name", sorted(CALLS))
def test_autocast_around_a_call_changes_no_rule(name: str) -> None:
    """Under autocast torch rounds the products of float32 arrays to bfloat16; rules that merge are left to it."""
    torch, xp = pytest.importorskip("torch", reason="autocast is torch's"), load("torch")
    quiet = CALLS[name].run(name, xp, dtype="float32")
    if isinstance(quiet, methods.MergedTokens):
        pytest.skip("merged tokens may need gradients, which the context of the backend switches off")

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = CALLS[name].run(name, xp, dtype="float32")

    for x, y in zip(arrays_of(found, xp), arrays_of(quiet, xp), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_every_function_leaves_its_inputs_alone(name: str) -> None:
    """Read-only arrays are enough, and hold what they held."""
    xp = load("numpy")
    given = {key: x.copy() for key, x in CALLS[name].arrays.items()}
    for x in given.values():
        x.setflags(write=False)

    CALLS[name].run(name, xp, **given)

    for key, x in given.items():
        np.testing.assert_array_equal(x, CALLS[name].arrays[key])


@pytest.mark.parametrize("name", sorted(name for name, call in CALLS.items() if call.rest == (M,)))
@pytest.mark.parametrize("budget", [0, -1, 0.0, 1.5, float("nan"), True, "5"])
def test_every_rule_refuses_a_bad_budget(name: str, budget: Any) -> None:
    """What is no budget of `select_tokens` is none here."""
    given = CALLS[name].arrays.values()

    with pytest.raises((ValueError, TypeError), match="`budget` is"):
        getattr(methods, name)(*given, budget, **CALLS[name].options)


SQUARING = [
    name
    for name, call in CALLS.items()
    if {"features", "keys", "hidden", "states", "image", "visual", "tokens", "after", "metric"} & set(call.arrays)
    and name not in {"random_tokens", "uniform", "rotary_gravity", "prumerge_attention", "dart_pivots", "pooling"}
]
"""Functions that multiply entries of their arrays; the others that are named read none, or add them up."""


@pytest.mark.parametrize("name", SQUARING)
def test_what_overflows_is_refused(name: str) -> None:
    """Finite numbers whose squares or products are not: the choice would be arbitrary."""
    xp = load("torch")
    vast = {key: x * 1e30 for key, x in CALLS[name].arrays.items() if x.dtype.kind == "f" and key != "attention"}

    with pytest.raises(ValueError, match=r"is not finite in torch\.float32"):
        CALLS[name].run(name, xp, dtype="float32", **{key: xp.array(x, "float32") for key, x in vast.items()})

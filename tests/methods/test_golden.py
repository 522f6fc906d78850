"""The methods compute what their official codes compute, on every golden case and several array libraries."""

from __future__ import annotations

import numpy as np
import pytest

from tests.libraries import Library, load
from tests.methods.golden import ANSWERS, answers
from tests.methods.judging import METHODS, Case, cases, disagreements, every_case, given

CASES = [pytest.param(method, case, id=f"{method}-{name}") for method, name, case in every_case()]
RULES_WITH_A_COUNT = [
    pytest.param(method, case, id=f"{method}-{name}")
    for method, name, case in every_case()
    if method in {"divprune", "scope", "vispruner", "fastervlm"}
]


FIXED_SHAPES = [
    "cdpruner", "divprune", "fastervlm", "fastv", "pyramiddrop", "scope", "tome", "v2drop", "visionzip", "vtw",
]  # fmt: skip
"""Methods without shapes that depend on data or change from step to step: JAX compiles each shape anew."""


def smallest(method: str) -> Case:
    """Return the smallest of a method's cases that are judged exactly."""
    exact = [case for _, case in cases(method) if str(case["judge"]) == "exact"]
    return min(exact, key=lambda case: sum(x.size for x in given(case).values()))


def skip_unless_held(xp: Library, dtype: str) -> None:
    """Skip a half-precision case on a library without that dtype."""
    if dtype not in {"float32", *xp.halves}:
        pytest.skip(f"{xp.name} has no {dtype}")


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("method", "case"), CASES)
def test_answers_are_the_official_results(library: str, method: str, case: Case) -> None:
    """Every golden case is reproduced, judged as it says: kept sets, orders, clusters and merged values."""
    xp = load(library)
    skip_unless_held(xp, str(case.get("arg_dtype", "float32")))

    found = answers(method, given(case), library=xp)

    assert disagreements(method, case, found) == []


@pytest.mark.parametrize(
    ("library", "method"),
    [("array_api_strict", method) for method in METHODS] + [("jax.numpy", method) for method in FIXED_SHAPES],
)
def test_answers_are_the_official_results_on_further_libraries(library: str, method: str) -> None:
    """The smallest case of each method is reproduced where arrays are strict, or cannot be written to."""
    case = smallest(method)

    found = answers(method, given(case), library=load(library))

    assert disagreements(method, case, found) == []


@pytest.mark.parametrize(("method", "case"), [(method, case) for method in METHODS for _, case in cases(method)[::7]])
def test_answers_need_no_choice_of_a_library(method: str, case: Case) -> None:
    """Without one, a case is answered too, and with every result that is promised for the method."""
    promised = {
        "fastv": {"keep_sequence"}, "divprune": {"order"}, "cdpruner": {"keep"}, "scope": {"order"},
        "visionzip": {"dominant", "contextual_targets", "assign", "tokens"}, "vispruner": {"keep"},
        "fastervlm": {"keep"}, "sparsevlm": {"raters", "keep"}, "pyramiddrop": {"keep"}, "v2drop": {"keep_sequence"},
        "dart": {"keep"}, "pact": {"euti_keep", "labels", "merged"}, "tome": {"x", "size"}, "prumerge": {"tokens"},
        "vtw": {"K"}, "holov": {"positions_order"},
        "mustdrop": {"tokens"} if "in_x" in case else {"keep"},
    }  # fmt: skip

    found = answers(method, given(case))

    assert {f"out_{name}" for name in promised[method]} <= set(found)


def test_every_golden_file_has_its_answer() -> None:
    """No method is left out."""
    assert sorted(ANSWERS) == METHODS


@pytest.mark.parametrize(("method", "case"), RULES_WITH_A_COUNT)
def test_rules_with_a_count_keep_it_exactly(method: str, case: Case) -> None:
    """M distinct tokens, also where the official code raises or repeats one."""
    kept = next(x for name, x in answers(method, given(case)).items() if name in {"out_keep", "out_order"})

    assert len(set(kept.tolist())) == kept.size == int(case["arg_M"])


def test_dart_in_half_precision_is_official_once_the_tie_among_pivots_is_broken() -> None:
    """Three text tokens have keys of equal norm; with the official one's key a little larger the sets are equal."""
    case = next(case for _, case in cases("dart") if str(case["judge"]) == "half")
    keys = case["in_keys"].copy()
    pivots = np.concatenate([case["out_pivot_image"], case["out_pivot_text"]])
    keys[:, pivots, :] *= 1 + 2.0**-6

    found = answers("dart", given(case) | {"in_keys": keys})

    np.testing.assert_array_equal(found["out_keep"], np.sort(case["out_keep"]))


def test_a_wrong_answer_is_found() -> None:
    """The judge itself can say no: an answer with one token exchanged, or one value off, is reported."""
    for method in METHODS:
        case = smallest(method)
        for key, x in answers(method, given(case)).items():
            wrong = x.astype(np.float64)
            wrong.reshape(-1)[:1] += 1000

            assert disagreements(method, case, {key: wrong}) == [key], method

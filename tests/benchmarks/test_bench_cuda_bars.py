"""The bars: met by numbers that reach them, missed by the one that does not."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest


def result_of(**changes: Any) -> dict[str, Any]:
    """Make results of two sizes and a model that meet every bar, but for changes in figures by rule."""
    figures = {
        "iwp, captured": {"median": 0.0004},
        "iwp": {"median": 0.001, "extra bytes": 2**29, "host synchronisations": 0},
        "iwp, checked": {"host synchronisations": 1},
        "DivPrune": {"median": 0.06},
        "DivPrune, captured": {"median": 0.03},
    }
    rules = {name: {**found, **changes.get(name, {})} for name, found in figures.items()}
    case = {"dtype": "bfloat16", "share": 0.111, "rules": rules}
    other = {"dtype": "float32", "share": 0.111, "rules": {"iwp": {"median": 9.0, "extra bytes": 2**40}}}
    against = {
        "speed-up over what is allowed": 0.95,
        "selection over full prefill": 0.005,
        "peak bytes of full": 0.9,
        **changes.get("model", {}),
    }
    kind = {"share": 0.98, "failures": [], "equal between runs": True, **changes.get("kind", {})}
    return {
        "selection": [{**other, "tokens": 7290}, {**case, "tokens": 7290}, {**case, "tokens": 1_000_000}],
        "models": [{"model": "LLaVA", "tokens": 7290, "batch": 1, "11.1%": {"against full": against}}],
        "correctness": {
            "shares": {"torch": {"bfloat16": {"ties": kind, "zeros": {"not run": "time"}}}},
            "torch": {
                "errors against the CPU": {"NaN": changes.get("error", "same")},
                "kernels that serve": {
                    "float64": [],
                    "bfloat16": changes.get("serving", ["select_batch", "log_magnitude", "progressive_chunked_mmr"]),
                },
            },
        },
    }


def verdicts(result: dict[str, Any], *, rehearsal: bool = False) -> dict[str, bool | None]:
    """Judge results by claim."""
    listed = import_module("cuda_bars").bars(7290, 1_000_000, ("LLaVA",), {"bfloat16": 0.97})
    return {bar.claim: bar.judge(result, rehearsal=rehearsal)["met"] for bar in listed}


def test_bars_are_met_by_numbers_that_reach_them() -> None:
    """What was not run is neither met nor missed, nor is anything in a rehearsal."""
    found = verdicts(result_of())

    not_run = {claim for claim, met in found.items() if met is None}
    assert all("CDPruner" in claim for claim in not_run)
    assert len(not_run) == 3
    assert all(met for claim, met in found.items() if claim not in not_run)
    assert set(verdicts(result_of(), rehearsal=True).values()) == {None}
    assert set(verdicts({}).values()) == {None}


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"iwp, captured": {"median": 0.00051}}, "selection of 7,290 tokens, bfloat16, captured: seconds"),
        ({"iwp": {"median": 0.0016}}, "selection of 7,290 tokens, bfloat16, uncaptured: seconds"),
        ({"DivPrune": {"median": 0.019}}, "DivPrune's loop over iwp, captured"),
        ({"DivPrune, captured": {"median": 0.019}}, "DivPrune's loop over iwp, both captured"),
        ({"iwp": {"extra bytes": 2**30}}, "selection of 1,000,000 tokens: extra bytes"),
        ({"iwp": {"host synchronisations": 1}}, "host synchronisations without validation"),
        ({"iwp, checked": {"host synchronisations": 2}}, "host synchronisations of validation"),
        (
            {"model": {"speed-up over what is allowed": 0.89}},
            "LLaVA: pruned decoder's speed-up over what the operations allow",
        ),
        ({"model": {"selection over full prefill": 0.011}}, "LLaVA: selection over full prefill"),
        ({"model": {"peak bytes of full": 1.0}}, "LLaVA: peak memory pruned over full"),
        ({"kind": {"share": 0.96}}, "torch, bfloat16: least share of the reference's tokens"),
        ({"kind": {"failures": ["N=1"]}}, "torch, bfloat16: least share of the reference's tokens"),
        ({"kind": {"equal between runs": False}}, "kinds whose answers differ between runs"),
        (
            {"serving": ["log_magnitude", "progressive_chunked_mmr"]},
            "kernels that leave a call of theirs to the reference",
        ),
        ({"error": "device: no error; CPU: ValueError"}, "bad calls with another error than on the CPU"),
    ],
)
def test_a_bar_is_missed_by_the_number_it_names(changes: dict[str, Any], missed: str) -> None:
    """And the others are not."""
    found = verdicts(result_of(**changes))

    assert found[missed] is False
    others = {claim for claim, met in found.items() if met is False and claim != missed}
    # One time is part of several ratios.
    assert all("over iwp" in claim for claim in others)

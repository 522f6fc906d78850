"""What the CUDA backends must reach on one H100 or H200, held against what was measured."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cuda_correctness import FUSED

GIB = 2**30
COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Bar:
    """A number: what it says, how it is read from the results (None where it was not run), what it must compare to."""

    claim: str
    read: Callable[[dict[str, Any]], float | None]
    must_be: str
    bound: float

    def judge(self, result: dict[str, Any], *, rehearsal: bool) -> dict[str, Any]:
        """Return the claim, the number and whether it is met; None where there is nothing to judge."""
        measured = self.read(result)
        met = None if measured is None or rehearsal else COMPARE[self.must_be](measured, self.bound)
        return {"claim": self.claim, "needed": f"{self.must_be} {self.bound:g}", "measured": measured, "met": met}


def _figures(result: dict[str, Any], total: int, rule: str) -> dict[str, Any]:
    """Return a rule's figures at so many tokens, bfloat16, the least budget; empty where it was not run."""
    for case in result.get("selection", []):
        if (case["tokens"], case["dtype"]) == (total, "bfloat16"):
            found: dict[str, Any] = case["rules"].get(rule, {})
            return found
    return {}


def _seconds(rule: str, total: int) -> Callable[[dict[str, Any]], float | None]:
    return lambda result: _figures(result, total, rule).get("median")


def _figure(rule: str, total: int, name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda result: _figures(result, total, rule).get(name)


def _times_faster(rule: str, ours: str, total: int) -> Callable[[dict[str, Any]], float | None]:
    def read(result: dict[str, Any]) -> float | None:
        theirs, own = (_figures(result, total, name).get("median") for name in (rule, ours))
        return theirs / own if theirs and own else None

    return read


def _against_full(name: str, total: int, model: str) -> Callable[[dict[str, Any]], float | None]:
    def read(result: dict[str, Any]) -> float | None:
        for entry in result.get("models", []):
            if (entry["model"], entry.get("tokens"), entry.get("batch")) == (model, total, 1):
                found: float | None = entry.get("11.1%", {}).get("against full", {}).get(name)
                return found
        return None

    return read


def _least_share(library: str, dtype: str) -> Callable[[dict[str, Any]], float | None]:
    def read(result: dict[str, Any]) -> float | None:
        kinds = result.get("correctness", {}).get("shares", {}).get(library, {}).get(dtype, {})
        # A kind whose cases broke down counts as nothing kept.
        shares = [0.0 if kind.get("failures") else kind.get("share") for kind in kinds.values()]
        return min((share for share in shares if share is not None), default=None)

    return read


def _unsteady(result: dict[str, Any]) -> float | None:
    libraries = result.get("correctness", {}).get("shares", {})
    run = [kind for dtypes in libraries.values() for kinds in dtypes.values() for kind in kinds.values()]
    steady = [kind["equal between runs"] for kind in run if "share" in kind]
    return float(steady.count(False)) if steady else None


def _other_errors(result: dict[str, Any]) -> float | None:
    parts = result.get("correctness", {}).values()
    said = [
        error for part in parts if isinstance(part, dict) for error in part.get("errors against the CPU", {}).values()
    ]
    return float(len(said) - said.count("same")) if said else None


def _not_served(result: dict[str, Any]) -> float | None:
    parts = result.get("correctness", {})
    found = {
        (library, dtype): kernels
        for library in ("torch", "CuPy")
        for dtype, kernels in parts.get(library, {}).get("kernels that serve", {}).items()
        # The tensor cores' float64 is left alone: such tensors run the reference.
        if (library, dtype) != ("torch", "float64")
    }
    return float(sum(len(FUSED) - len(kernels) for kernels in found.values())) if found else None


def bars(total: int, largest: int, models: tuple[str, ...], needed: dict[str, float]) -> list[Bar]:
    """List the bars: `total` and `largest` are the two sizes that they name, `needed` the shares of equal tokens."""
    selection = [
        Bar(
            f"selection of {total:,} tokens, bfloat16, captured: seconds", _seconds("iwp, captured", total), "<=", 5e-4
        ),
        Bar(f"selection of {total:,} tokens, bfloat16, uncaptured: seconds", _seconds("iwp", total), "<=", 1.5e-3),
    ]
    for rival in ("DivPrune", "CDPruner"):
        selection += [
            Bar(f"{rival}'s loop over iwp, captured", _times_faster(rival, "iwp, captured", total), ">=", 50),
            Bar(f"{rival}'s loop over iwp, both uncaptured", _times_faster(rival, "iwp", total), ">=", 50),
            Bar(
                f"{rival}'s loop over iwp, both captured",
                _times_faster(f"{rival}, captured", "iwp, captured", total),
                ">=",
                50,
            ),
        ]
    waits = "host synchronisations"
    selection += [
        Bar(f"selection of {largest:,} tokens: extra bytes", _figure("iwp", largest, "extra bytes"), "<", GIB),
        Bar("host synchronisations without validation", _figure("iwp", total, waits), "<=", 0),
        Bar("host synchronisations of validation", _figure("iwp, checked", total, waits), "<=", 1),
    ]
    whole = [
        bar
        for model in models
        for bar in (
            Bar(
                f"{model}: pruned decoder's speed-up over what the operations allow",
                _against_full("speed-up over what is allowed", total, model),
                ">=",
                0.9,
            ),
            Bar(
                f"{model}: selection over full prefill",
                _against_full("selection over full prefill", total, model),
                "<=",
                0.01,
            ),
            Bar(
                f"{model}: peak memory pruned over full",
                _against_full("peak bytes of full", total, model),
                "<",
                1,
            ),
        )
    ]
    shares = [
        Bar(f"{library}, {dtype}: least share of the reference's tokens", _least_share(library, dtype), ">=", share)
        for library in ("torch", "CuPy")
        for dtype, share in needed.items()
        if (library, dtype) != ("CuPy", "bfloat16")
    ]
    answers = [
        Bar("kernels that leave a call of theirs to the reference", _not_served, "<=", 0),
        Bar("kinds whose answers differ between runs", _unsteady, "<=", 0),
        Bar("bad calls with another error than on the CPU", _other_errors, "<=", 0),
    ]
    return [*selection, *whole, *shares, *answers]

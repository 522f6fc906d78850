"""Time and memory of selecting on one device: ours, a plain dense PC-MMR, and the greedy rivals."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import greedy_rivals
import torch
from cuda_clock import Allowance, Clock, reason
from cuda_tokens import HEADS, KEY_BIAS, WIDTH, Candidates, draw
from selection_rivals import dense_pc_mmr, greedy_mmr
from torch import Tensor

from iwp_core import PCMMR, select_tokens, use_backend
from iwp_core.budget import tokens_to_keep

DENSE = "plain dense PC-MMR"
GRAPH_STEPS = 3000
"""Steps of a greedy loop up to which it is also captured: each step is a handful of launches in the graph."""

Work = Callable[[int, int], float]
Held = Callable[[int, int, int], float]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is chosen from: sizes (N), shares (M/N), dtypes, and what the rivals read."""

    sizes: tuple[int, ...] = (576, 1024, 2880, 7290, 20_000, 100_000, 1_000_000)
    shares: tuple[float, ...] = (0.111, 0.222, 0.353)
    dtypes: tuple[str, ...] = ("bfloat16", "float32")
    feature_width: int = 3584
    text_tokens: int = 64
    enough: float = 0.15
    """Seconds after which a fast rule has been timed often enough."""
    patience: float = 1.0
    """Factor on every rule's own."""


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What the device could do at best: assumptions, which the two limits are computed from."""

    bytes_per_second: float
    flops: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to choose.

    `work` says how its time grows with (N, M), `held` how many bytes it holds beside its inputs at (N, M, bytes of a
    number); a call that is expected to take longer than `patience` seconds, or to keep more than `most_kept` tokens, is
    left out.
    """

    run: Callable[[Candidates], Any]
    work: Work = lambda total, kept: total * kept
    held: Held = lambda total, _kept, _size: 4 * total
    patience: float = 1.5
    captured: bool = False
    most_kept: float = math.inf
    arrays_of: str = "torch"
    reads_features: bool = False


def pairs(count: int, total: int) -> int:
    """Return the pairs of tokens that algorithm 1 compares: every chunk but the last with all that remain."""
    met, left = 0, total
    for size in PCMMR().chunk_sizes(count)[:-1]:
        left -= size
        met += left * size
    return met


def limits(case: Candidates, dtype: str, peaks: Peaks) -> dict[str, float]:
    """Return the bytes and operations that selecting cannot do without, and the seconds they take at the peaks."""
    flops = pairs(case.count, case.total) * HEADS * 2 * (WIDTH + WIDTH)
    return {
        "bytes read": case.tokens.bytes,
        "seconds to read": case.tokens.bytes / peaks.bytes_per_second,
        "flops": flops,
        "seconds to compute": flops / peaks.flops[dtype],
    }


def _ours(case: Candidates) -> Tensor:
    return select_tokens(*case.tokens.parts, case.count, validate=False)


def _ours_checked(case: Candidates) -> Tensor:
    return select_tokens(*case.tokens.parts, case.count)


def _ours_reference(case: Candidates) -> Tensor:
    with use_backend("reference"):
        return _ours(case)


def _ours_cupy(case: Candidates) -> Any:
    import cupy  # noqa: PLC0415 - loaded where it is there

    # Without a copy: CuPy reads the tensors' memory, on the same default stream.
    return select_tokens(*(cupy.asarray(part) for part in case.tokens.parts), case.count, validate=False)


def _plain(rule: Callable[..., Tensor]) -> Callable[[Candidates], Tensor]:
    """Run a rule in float32, which its matrix products need."""

    def run(case: Candidates) -> Tensor:
        keys, values, queries = (part.float() for part in case.tokens.parts)
        return rule(keys, values, queries, case.count)

    return run


def _div_prune(case: Candidates) -> Tensor:
    return greedy_rivals.div_prune(case.features, case.count)


def _cd_pruner(case: Candidates) -> Tensor:
    return greedy_rivals.cd_pruner(case.features, case.relevance, case.count)


def _scope(case: Candidates) -> Tensor:
    return greedy_rivals.scope(case.features, case.relevance, case.count)


def _trim_tokenator(case: Candidates) -> Tensor:
    return greedy_rivals.trim_tokenator(case.features, case.text, case.count)


def _dense_bytes(total: int, kept: int, _size: int) -> float:
    return 4 * HEADS * total * (4 * max(PCMMR().chunk_sizes(kept)[:-1], default=0) + 6 * WIDTH)


def _square(matrices: int) -> Held:
    return lambda total, _kept, size: matrices * size * total**2


def _determinantal_bytes(total: int, kept: int, _size: int) -> float:
    return 4 * total * (total + kept)


OURS, OURS_CAPTURED = "iwp", "iwp, captured"
OUR_RULES: dict[str, Rule] = {
    OURS: Rule(run=_ours, patience=20.0),
    "iwp, checked": Rule(run=_ours_checked, patience=20.0),
    OURS_CAPTURED: Rule(run=_ours, patience=20.0, captured=True),
    "iwp, reference code": Rule(run=_ours_reference, patience=10.0),
    "iwp, CuPy": Rule(run=_ours_cupy, patience=20.0, arrays_of="CuPy"),
}
_CD_PRUNER = Rule(
    run=_cd_pruner, work=lambda total, kept: total * kept**2, held=_determinantal_bytes, reads_features=True
)
_DIV_PRUNE = Rule(run=_div_prune, held=_square(1), reads_features=True)
RIVALS: dict[str, Rule] = {
    DENSE: Rule(run=_plain(dense_pc_mmr), held=_dense_bytes),
    "greedy MMR": Rule(run=_plain(greedy_mmr), held=lambda total, _kept, _size: 4 * HEADS * total * 8 * WIDTH),
    "DivPrune": _DIV_PRUNE,
    "DivPrune, captured": replace(_DIV_PRUNE, captured=True, most_kept=GRAPH_STEPS),
    "CDPruner": _CD_PRUNER,
    "CDPruner, captured": replace(_CD_PRUNER, captured=True, most_kept=GRAPH_STEPS),
    "SCOPE": Rule(run=_scope, work=lambda total, kept: total**2 * kept, held=_square(2), reads_features=True),
    "TrimTokenator": Rule(run=_trim_tokenator, held=_square(1), reads_features=True),
}


class Series:
    """The timings of one rule in one dtype, which foretell how long the next size will take."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._seen: list[tuple[float, float]] = []

    def expected(self, total: int, kept: int) -> float:
        """Return the seconds that a call should take, by the nearest smaller one; 0 without one."""
        work = self.rule.work(total, kept)
        smaller = [(done, seconds) for done, seconds in self._seen if done <= work]
        if not smaller:
            return 0.0
        done, seconds = max(smaller)
        return seconds * work / done

    def obstacle(self, case: Candidates, clock: Clock, allowance: Allowance) -> str | None:
        """Say why a size is left out, or None."""
        rule, total, kept = self.rule, case.total, case.count
        if rule.captured and not clock.on_cuda:
            return "CUDA graphs need a GPU"
        if rule.arrays_of == "CuPy" and (not clock.on_cuda or case.tokens.keys.dtype == torch.bfloat16):
            return "CuPy has no bfloat16" if clock.on_cuda else "CuPy needs a GPU"
        if kept > rule.most_kept:
            return f"a graph of the launches of {kept:,} steps"
        size = case.tokens.keys.element_size()
        # Features, a copy of unit length, and for some rules a wider one.
        features = total * case.width * (2 * size + 8) if rule.reads_features else 0
        held, free = rule.held(total, kept, size) + features, clock.free_bytes()
        if held > 0.9 * free:
            return f"memory: about {held / 1e9:,.1f} GB, of which {free / 1e9:,.1f} GB are free"
        expected = self.expected(total, kept)
        if expected > rule.patience:
            return f"time: about {expected:,.0f} s a call, more than {rule.patience:g} s"
        return "time" if 4 * expected > allowance.left or allowance.left < 0 else None

    def measure(self, case: Candidates, clock: Clock, allowance: Allowance, enough: float) -> dict[str, Any]:
        """Time a rule on a case, or say why not; the answer comes along under "answer"."""
        obstacle = self.obstacle(case, clock, allowance)
        if obstacle is not None:
            return {"not run": obstacle}
        call: Callable[[], Any] = partial(self.rule.run, case)
        try:
            found: dict[str, Any] = {"answer": call()}  # warms up: compiles, draws the rivals' inputs
            if self.rule.captured:
                waits = clock.host_synchronisations(call)
                if waits:
                    return {"not run": f"cannot be captured: the host waits {waits} times"}
                call = clock.captured(call)
                found["answer"] = call()
            elif self.rule.arrays_of == "torch":

                def counted() -> None:
                    found["host synchronisations"] = clock.host_synchronisations(call)

                found["extra bytes"] = clock.extra_bytes(counted)
            found |= clock.repeated(call, enough)
        except Exception as error:  # one broken case is a result
            return {"failed": reason(error)}
        self._seen.append((self.rule.work(case.total, case.count), found["median"]))
        return found


def _in_common(answer: Any, expected: Tensor) -> float:
    return float(torch.isin(torch.as_tensor(answer).cpu(), expected).float().mean())


def _measure_case(
    case: Candidates, series: dict[str, Series], clock: Clock, allowance: Allowance, enough: float
) -> dict[str, Any]:
    """Time all rules on a case, ours first, whose answer the plain algorithm's is compared with."""
    rules: dict[str, Any] = {}
    expected: Tensor | None = None
    for name, one in series.items():
        rules[name] = one.measure(case, clock, allowance, enough)
        answer = rules[name].pop("answer", None)
        if name == OURS and answer is not None:
            expected = answer.cpu()
        if (name in OUR_RULES or name == DENSE) and answer is not None and expected is not None:
            rules[name]["tokens in common with iwp"] = _in_common(answer, expected)
    return rules


def run(
    plan: Plan,
    clock: Clock,
    seed: int,
    peaks: Peaks,
    allowance: Allowance,
    show: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """Time every rule at every size that time and memory allow.

    Share by share, so that what lack of time leaves out are the last shares, and not some rules of all of them.
    `show` is given the list of cases, as far as it goes, after each.
    """
    rules = {
        name: replace(rule, patience=plan.patience * rule.patience) for name, rule in {**OUR_RULES, **RIVALS}.items()
    }
    series = {dtype: {name: Series(rule) for name, rule in rules.items()} for dtype in plan.dtypes}
    cases: list[dict[str, Any]] = []
    # In each series the small sizes come first: they foretell what the large ones take.
    for share, total, dtype in product(plan.shares, plan.sizes, plan.dtypes):
        count = tokens_to_keep(share, total)
        entry: dict[str, Any] = {"tokens": total, "kept": count, "share": share, "dtype": dtype}
        cases.append(entry)
        if allowance.left < 0:
            entry["rules"] = {name: {"not run": "time"} for name in rules}
            continue
        generator = torch.Generator(clock.device).manual_seed(seed + total)
        tokens = draw(total, generator, key_bias=KEY_BIAS).to(getattr(torch, dtype))
        case = Candidates(tokens, count, plan.feature_width, plan.text_tokens, generator)
        entry["limits"] = limits(case, dtype, peaks)
        entry["rules"] = _measure_case(case, series[dtype], clock, allowance, plan.enough)
        del tokens, case
        clock.settle(release=True)
        show(cases)
    return cases

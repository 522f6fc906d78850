"""Answers on the device against the core's own code in float64 on the CPU, on fresh random and hard inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from cuda_clock import Allowance, reason
from cuda_tokens import KINDS, Tokens
from selection_rivals import dense_pc_mmr

from iwp_core import MMR, PCMMR, TopK, select_tokens, use_backend
from iwp_core.budget import tokens_to_keep

BARS = {"float64": 1.0, "float32": 0.995, "bfloat16": 0.97, "float16": 0.97}
"""Least share of the tokens kept that must be the reference's."""

VARIANTS: dict[str, dict[str, Any]] = {
    "softmax_mean": {"heads": "softmax_mean"},
    "gradient_norm": {"magnitude": "gradient_norm"},
    "similarity of values": {"similarity": "value"},
    "similarity of keys": {"similarity": "key"},
    "linear kernel": {"kernel": "linear"},
    "exponent 1": {"strategy": PCMMR(exponent=1)},
    "chunk 3, growth 1": {"strategy": PCMMR(chunk=3, growth=1.0)},
    "floor 0, tempered": {"strategy": PCMMR(floor=0.0, temper=0.5)},
    "greedy MMR": {"strategy": MMR()},
    "top-k": {"strategy": TopK()},
}
"""Options besides the defaults, tried on one size."""

BACKENDS = {"torch": "iwp_torch", "CuPy": "iwp_cupy"}


class SamplewisePCMMR(PCMMR):
    """A strategy of a user's own, as far as backends can tell: it is asked sample by sample."""


FUSED: dict[str, dict[str, Any]] = {
    "select_batch": {},
    "log_magnitude": {"strategy": MMR()},
    "progressive_chunked_mmr": {"strategy": SamplewisePCMMR()},
}
"""The kernels of a backend that run on a GPU only, and options of a call that each has to serve.

A call with the default options is served whole, by `select_batch`. The others serve calls that go sample by sample.
"""

UNTIED = ("independent", "clusters", "key bias 300", "logits in the hundreds")
"""Kinds that the plain algorithm serves too: no zero vectors, no exact ties."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes (N), budgets, and the size at which options are varied."""

    sizes: tuple[int, ...] = (63, 1021, 2880)
    budgets: tuple[float, ...] = (1, 0.111, 0.353)
    variant_size: int = 576
    dtypes: tuple[str, ...] = tuple(BARS)


@dataclass(frozen=True, kw_only=True)
class Library:
    """An array library that answers: how tensors of the CPU get into it and back, and what it is on a CPU."""

    into: Callable[[torch.Tensor], Any]
    on_cpu: Callable[[torch.Tensor], Any]
    back: Callable[[Any], np.ndarray]
    dtypes: tuple[str, ...]


@dataclass
class Tally:
    """How many of the reference's tokens were kept, over all cases of a kind."""

    kept: int = 0
    equal: int = 0
    worst: float = 1.0
    steady: bool = True
    failures: list[str] = field(default_factory=list)

    def add(self, answers: list[np.ndarray], expected: np.ndarray) -> None:
        """Count one case, answered several times."""
        same = np.intersect1d(answers[0], expected).size if answers[0].size == expected.size else 0
        self.kept += expected.size
        self.equal += same
        self.worst = min(self.worst, same / expected.size)
        self.steady = self.steady and all(np.array_equal(answers[0], other) for other in answers[1:])

    def result(self, bar: float) -> dict[str, Any]:
        """Return the shares, and whether they reach the bar."""
        if not self.kept and not self.failures:
            return {"not run": "time"}
        share = self.equal / self.kept if self.kept else 0.0
        met = share >= bar and self.steady and not self.failures
        counts = {"tokens": self.kept, "equal": self.equal, "share": share, "least share of a case": self.worst}
        return {**counts, "equal between runs": self.steady, "bar": bar, "met": met, "failures": self.failures}


def _to_numpy(part: torch.Tensor) -> np.ndarray:
    return part.numpy()


def libraries(device: torch.device) -> dict[str, Library | str]:
    """Return torch on the device and CuPy, or why that is missing; on a CPU NumPy stands in for CuPy."""
    on_device = Library(
        into=lambda part: part.to(device),
        on_cpu=lambda part: part,
        back=lambda kept: kept.cpu().numpy(),
        dtypes=tuple(BARS),
    )
    without_bfloat16 = ("float64", "float32", "float16")
    if device.type != "cuda":
        numpy = Library(into=_to_numpy, on_cpu=_to_numpy, back=np.asarray, dtypes=without_bfloat16)
        return {"torch": on_device, "NumPy": numpy}
    try:
        import cupy  # noqa: PLC0415 - loaded where it is there

        cupy.zeros(1)
    except Exception as error:  # whatever a broken installation raises becomes the reason
        return {"torch": on_device, "CuPy": reason(error)}
    arrays = Library(
        into=lambda part: cupy.asarray(part.numpy()), on_cpu=_to_numpy, back=cupy.asnumpy, dtypes=without_bfloat16
    )
    return {"torch": on_device, "CuPy": arrays}


def reference(tokens: Tokens, count: int, **options: Any) -> np.ndarray:
    """Choose by the core's own code, in float64, of the numbers that a narrower dtype holds."""
    wide = tokens.to(torch.float64)
    with use_backend("reference"):
        return np.asarray(select_tokens(*(part.numpy() for part in wide.parts), count, **options))


def answer(library: Library, tokens: Tokens, count: int, **options: Any) -> np.ndarray:
    """Choose on the device."""
    return library.back(select_tokens(*(library.into(part) for part in tokens.parts), count, **options))


@contextmanager
def kernels_that_serve(name: str) -> Iterator[set[str]]:
    """Give the set that names each kernel for CUDA that serves a call of a library within the block."""
    serving: set[str] = set()
    if name not in BACKENDS:
        yield serving
        return
    backend = import_module(BACKENDS[name])

    def noted(key: str, *arguments: Any, **options: Any) -> Any:
        serving.add(key)
        return kernels[key].run(*arguments, **options)

    kernels = dict(backend.kernels)
    noting = {key: replace(kernels[key], run=partial(noted, key)) for key in FUSED}
    with patch.object(backend, "kernels", kernels | noting):
        yield serving


def _served(name: str, library: Library, tokens: Tokens) -> dict[str, list[str]]:
    """List, dtype by dtype, the kernels for CUDA that serve the calls that they are for.

    Where they cannot be compiled the reference runs instead: right, and slow, and otherwise unseen.
    """
    found: dict[str, list[str]] = {}
    for dtype in library.dtypes:
        found[dtype] = []
        for kernel, options in FUSED.items():
            with kernels_that_serve(name) as serving:
                answer(library, tokens.to(getattr(torch, dtype)), 5, **options)
            if kernel in serving:
                found[dtype].append(kernel)
    return found


def _cases(plan: Plan, generator: torch.Generator) -> Iterator[tuple[str, Tokens, float, dict[str, Any]]]:
    """List the cases, the largest last, so that lack of time leaves out a size and no kind."""
    tokens = KINDS["key bias 300"](plan.variant_size, generator)
    for name, options in VARIANTS.items():
        yield name, tokens, plan.budgets[-1], options
    for total in plan.sizes:
        for kind, make in KINDS.items():
            tokens = make(total, generator)
            for budget in plan.budgets:
                yield kind, tokens, budget, {}


def _against_reference(
    plan: Plan, found: dict[str, Library], generator: torch.Generator, allowance: Allowance
) -> dict[str, Any]:
    kinds = (*KINDS, *VARIANTS)
    tallies = {
        (name, dtype, kind): Tally()
        for name, library in found.items()
        for dtype in plan.dtypes
        if dtype in library.dtypes
        for kind in kinds
    }
    plain = Tally()
    for kind, drawn, budget, options in _cases(plan, generator):
        for dtype in plan.dtypes:
            if allowance.left < 0:
                break
            tokens = drawn.to(getattr(torch, dtype))
            count = tokens_to_keep(budget, tokens.keys.shape[1])
            expected = reference(tokens, count, **options)
            for name, library in found.items():
                if dtype not in library.dtypes:
                    continue
                tally = tallies[name, dtype, kind]
                try:
                    tally.add([answer(library, tokens, count, **options) for _ in range(3)], expected)
                except Exception as error:  # one broken case is a result
                    tally.failures.append(f"N={tokens.keys.shape[1]}, M={count}: {reason(error)}")
            if kind in UNTIED and dtype == "float64":
                plain.add([dense_pc_mmr(*tokens.parts, count).numpy()], expected)
    shares: dict[str, Any] = {name: {} for name in found}
    for (name, dtype, kind), tally in tallies.items():
        shares[name].setdefault(dtype, {})[kind] = tally.result(BARS[dtype])
    return {"shares": shares, "float64 reference against the plain algorithm": plain.result(BARS["float64"])}


def _rows_equal_their_own_calls(library: Library, total: int, generator: torch.Generator) -> bool:
    """Compare a batch of two by three samples with six calls."""
    rows = [KINDS["key bias 300"](total, generator) for _ in range(6)]
    stacked = [torch.stack(parts).unflatten(0, (2, 3)) for parts in zip(*(row.parts for row in rows), strict=True)]
    count = tokens_to_keep(0.222, total)
    batch = library.back(select_tokens(*(library.into(part) for part in stacked), count))
    single = [answer(library, row, count) for row in rows]
    return np.array_equal(batch, np.stack(single).reshape(2, 3, count))


def _same_error(library: Library, spoil: Callable[[Tokens], tuple[Any, ...]], tokens: Tokens) -> str:
    """Return "same" if the device refuses a call as the CPU does, else what each says."""
    said = []
    for into in (library.into, library.on_cpu):
        *arrays, budget = spoil(tokens)
        try:
            select_tokens(*(into(part) for part in arrays), budget)
            said.append("no error")
        except (TypeError, ValueError) as error:
            said.append(f"{type(error).__name__}: {error}")
    if said[0] == said[1] != "no error":
        return "same"
    return f"device: {said[0]}; CPU: {said[1]}"


def _nan(tokens: Tokens) -> tuple[Any, ...]:
    values = tokens.values.clone()
    values[1, 2, 3] = torch.nan
    return tokens.keys, values, tokens.queries, 5


BAD_CALLS: dict[str, Callable[[Tokens], tuple[Any, ...]]] = {
    "NaN among the values": _nan,
    "infinite key": lambda tokens: (tokens.keys / 0, tokens.values, tokens.queries, 5),
    "budget of nothing": lambda tokens: (*tokens.parts, 0),
    "share above one": lambda tokens: (*tokens.parts, 1.5),
    "values of fewer tokens": lambda tokens: (tokens.keys, tokens.values[:, 1:], tokens.queries, 5),
    "queries that are no multiple of the heads": lambda tokens: (tokens.keys, tokens.values, tokens.queries[1:], 5),
    "no tokens": lambda tokens: (tokens.keys[:, :0], tokens.values[:, :0], tokens.queries, 5),
}


def run(plan: Plan, device: torch.device, seed: int, allowance: Allowance) -> dict[str, Any]:
    """Compare every library and dtype with the reference; see whether answers repeat, and errors are the same."""
    generator = torch.Generator().manual_seed(seed)
    all_libraries = libraries(device)
    found = {name: library for name, library in all_libraries.items() if isinstance(library, Library)}
    result: dict[str, Any] = {"not run": {name: why for name, why in all_libraries.items() if isinstance(why, str)}}
    tokens = KINDS["clusters"](20, generator)
    for name, library in found.items():
        result[name] = {
            "kernels that serve": _served(name, library, tokens),
            "rows of a batch equal their own calls": _rows_equal_their_own_calls(library, 130, generator),
            "errors against the CPU": {call: _same_error(library, spoil, tokens) for call, spoil in BAD_CALLS.items()},
        }
    return result | _against_reference(plan, found, generator, allowance)

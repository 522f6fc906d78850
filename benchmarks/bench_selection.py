"""Cost of selecting tokens on a CPU, beside the plain algorithm and the greedy rivals.

Run: ``python benchmarks/bench_selection.py`` (about ten minutes). One thread, float32, clustered tokens; all rules meet
the same tokens in one process, so that ratios hold on a noisy machine. Peak memory is taken in a process of its own.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries are first imported, hence before them

import math  # noqa: E402 - after the threads are set
import multiprocessing  # noqa: E402 - after the threads are set
from collections.abc import Callable  # noqa: E402
from typing import Annotated, Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import typer  # noqa: E402
from _harness import RESULTS, header, peak_extra_bytes, seconds, write  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from rich.progress import track  # noqa: E402
from selection_rivals import dense_pc_mmr, greedy_mmr, max_min_greedy  # noqa: E402

from iwp_core import select_tokens, use_backend  # noqa: E402
from iwp_core.budget import tokens_to_keep  # noqa: E402

HEADS, QUERY_HEADS, WIDTH = 4, 28, 128
SIZES = (576, 1024, 2880, 7290, 20_000, 50_000, 100_000)
SHARES = {7290: (0.111, 0.222, 0.353)}
TOKENS_PER_CLUSTER = 24
MOST_PRODUCTS = {"plain": 2e12, "greedy": 1e10, "max-min": 2e12}
"""Multiply-adds of a rule beyond which it is left out; greedy MMR's are matrix-vector products, which are slower."""
MOST_BYTES = 12e9
SLOW_FROM = 7290
"""Tokens from which on the rivals run once: they take seconds to minutes."""


def tokens(total: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return keys with a bias of norm 300, values and queries of clustered tokens, in float32.

    Neighbouring patches of a picture resemble each other: about every 24 tokens share a centre.
    """
    generator = np.random.default_rng(seed)
    clusters = max(1, total // TOKENS_PER_CLUSTER)
    member = generator.integers(0, clusters, total)

    def clustered(spread: float) -> np.ndarray:
        centres = generator.standard_normal((HEADS, clusters, WIDTH))
        return np.take(centres, member, axis=1) + spread * generator.standard_normal((HEADS, total, WIDTH))

    bias = generator.standard_normal((HEADS, 1, WIDTH))
    keys = clustered(0.5) + 300 * bias / np.linalg.norm(bias, axis=-1, keepdims=True)
    queries = generator.standard_normal((QUERY_HEADS, WIDTH))
    return tuple(np.ascontiguousarray(x, dtype=np.float32) for x in (keys, clustered(0.5), queries))


def ours(*arguments: Any) -> Any:
    """Select with the library, its backend included."""
    return select_tokens(*arguments)


def ours_reference(*arguments: Any) -> Any:
    """Select with the core's own code on torch tensors."""
    with use_backend("reference"):
        return select_tokens(*arguments)


RULES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "iwp, torch": (ours, torch.from_numpy),
    "iwp, torch without plugin": (ours_reference, torch.from_numpy),
    "iwp, NumPy": (ours, np.asarray),
    "plain dense PC-MMR, torch": (dense_pc_mmr, torch.from_numpy),
    "greedy MMR, torch": (greedy_mmr, torch.from_numpy),
    "max-min greedy (DivPrune), torch": (max_min_greedy, torch.from_numpy),
}
SAME_ANSWER = tuple(RULES)[:3]
MEASURED_MEMORY = ("iwp, torch", "iwp, NumPy", "plain dense PC-MMR, torch")


def too_much(rule: str, total: int, kept: int) -> str | None:
    """Say why a rule is left out at a size, or None."""
    kind = rule.partition(" ")[0]
    pairs = {"plain": kept * total, "greedy": kept * total, "max-min": total * total / 2}.get(kind, 0)
    products = pairs * HEADS * 2 * WIDTH
    if products > MOST_PRODUCTS.get(kind, math.inf):
        return f"{products:.0e} multiply-adds"
    held = {"plain": 4 * HEADS * total * kept, "max-min": 3 * 4 * total * total}.get(kind, 0)
    if held > MOST_BYTES:
        return f"{held / 1e9:.0f} GB"
    return None


def run_case(total: int, share: float, repeats: int) -> dict[str, Any]:
    """Time every rule on the same tokens, and compare the answers of those that must agree."""
    arrays = tokens(total)
    kept = tokens_to_keep(share, total)
    case: dict[str, Any] = {"tokens": total, "kept": kept, "share": share, "rules": {}}
    answers = {}
    for name, (rule, convert) in RULES.items():
        reason = too_much(name, total, kept)
        if reason is not None:
            case["rules"][name] = {"skipped": reason}
            continue
        inputs = [convert(array) for array in arrays]

        def call(name: str = name, rule: Callable[..., Any] = rule, inputs: list[Any] = inputs) -> None:
            answers[name] = rule(*inputs, kept)

        slow = name not in SAME_ANSWER and total >= SLOW_FROM
        case["rules"][name] = seconds(call, 1 if slow else repeats)
    plain = answers.get("plain dense PC-MMR, torch")
    if plain is not None:
        for name in SAME_ANSWER:
            same = np.intersect1d(np.asarray(answers[name]), plain.numpy()).size / kept
            case["rules"][name]["tokens in common with the plain algorithm"] = same
    return case


def memory_case(total: int, share: float, rule: str) -> dict[str, Any]:
    """Measure one rule's peak extra memory in this process, which has done nothing else."""
    function, convert = RULES[rule]
    arrays = tokens(total)
    inputs = [convert(array) for array in arrays]
    function(*[x[..., :64, :] if x.shape[-2] == total else x for x in inputs], 8)  # pay for lazy imports first
    extra = peak_extra_bytes(lambda: function(*inputs, tokens_to_keep(share, total)), torch.device("cpu"))
    return {"extra bytes": extra, "of the inputs": extra / sum(array.nbytes for array in arrays)}


def plot(cases: list[dict[str, Any]]) -> Figure:
    """Draw seconds over tokens, both logarithmic, for the budget that every size has."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name in RULES:
        points = [
            (case["tokens"], case["rules"][name]["median"])
            for case in cases
            if case["share"] == SHARES[7290][0] and "median" in case["rules"][name]
        ]
        style = "-" if name.startswith("iwp") else "--"
        axes.loglog(*zip(*points, strict=True), style, marker="o", markersize=4, label=name)
    axes.set_xlabel("visual tokens N")
    axes.set_ylabel("seconds, one thread")
    axes.set_title(f"Selecting 11.1 % of the tokens, {HEADS} heads of {WIDTH}, float32")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    return figure


def main(
    repeats: Annotated[int, typer.Option(help="Timed runs of a fast rule.")] = 5,
    largest: Annotated[int, typer.Option(help="Largest number of tokens.")] = SIZES[-1],
) -> None:
    """Time all rules at all sizes; write results/selection_cpu.json and results/selection_cpu.png."""
    torch.set_num_threads(1)
    work = [(total, share) for total in SIZES if total <= largest for share in SHARES.get(total, (0.111,))]
    conditions = {"threads": 1, "dtype": "float32", "heads": HEADS, "query heads": QUERY_HEADS, "width": WIDTH}
    about = header("python benchmarks/bench_selection.py", **conditions)
    cases: list[dict[str, Any]] = []
    for total, share in track(work, description="timing"):
        case = run_case(total, share, repeats)
        for rule in MEASURED_MEMORY:
            if "skipped" not in case["rules"][rule]:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    case["rules"][rule]["memory"] = pool.apply(memory_case, (total, share, rule))
        cases.append(case)
        write("selection_cpu", {**about, "cases": cases})  # after each size: the last ones take long
        for name, figures in case["rules"].items():
            shown = figures.get("skipped") or f"{figures['median'] * 1000:10.1f} ms  {figures.get('memory', '')}"
            print(f"N={total:>7} {share:.1%}  {name:34} {shown}")
    plot(cases).savefig(RESULTS / "selection_cpu.png", dpi=120)


if __name__ == "__main__":
    typer.run(main)

"""Speed of `select_tokens` beside the plain dense loop, on every kind of data: the worst case beside the best.

Run: ``python benchmarks/bench_selection_kinds.py`` (about a quarter of an hour on an idle machine). Synthetic tokens of
wide heads, and narrow ones that models computed. One thread, float32. Ours and the plain loop take turns on the same
tokens, in processor time of the thread, so that ratios hold on a machine with other work.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries are first imported, hence before them

import statistics  # noqa: E402 - after the threads are set
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Annotated, Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import typer  # noqa: E402
from _harness import header, write  # noqa: E402
from selection_captured import CAPTURED, MOST_CAPTURED  # noqa: E402
from selection_data import HEADS, KINDS, QUERY_HEADS, WIDTH  # noqa: E402
from selection_rivals import dense_pc_mmr, dense_pc_mmr_numpy  # noqa: E402

from iwp_core import select_tokens  # noqa: E402
from iwp_core.budget import tokens_to_keep  # noqa: E402

SIZES: dict[int, tuple[float, ...]] = {
    576: (0.111, 0.222, 0.353),
    1024: (0.111, 0.222, 0.353),
    2048: (0.111, 0.222, 0.353),
    7290: (0.111, 0.353),
    20_000: (0.111,),
}
FEWER_TURNS = {7290: 7, 20_000: 3}
"""Sizes whose single calls take seconds, so that chance moves them less."""

LIBRARIES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "NumPy": (np.asarray, dense_pc_mmr_numpy),
    "torch": (torch.from_numpy, dense_pc_mmr),
}
WITHOUT_ANSWER = "near copies"
"""Which of these come first is a matter of rounding, so only the time is compared."""


def clocked(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor seconds of this thread that a call takes, and its answer."""
    start = time.thread_time()
    answer = call()
    return time.thread_time() - start, answer


def run_case(total: int, share: float, kind: str, library: str, repeats: int) -> dict[str, Any]:
    """Let both take turns, and compare their answers."""
    convert, plain = LIBRARIES[library]
    arrays = [convert(array) for array in (KINDS | CAPTURED)[kind](total)]
    count = tokens_to_keep(share, total)
    calls = {"ours": lambda: select_tokens(*arrays, count), "plain": lambda: plain(*arrays, count)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    answers = {name: np.asarray(call()) for name, call in calls.items()}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(clocked(call)[0])
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return {
        "tokens": total,
        "share": share,
        "kind": kind,
        "library": library,
        "seconds": medians,
        "ratio": medians["plain"] / medians["ours"],
        "spread of ours": [min(times["ours"]), max(times["ours"])],
        "in common": None if kind == WITHOUT_ANSWER else np.intersect1d(*answers.values()).size / count,
    }


def summarise(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each library and size the worst, the median and the best ratio."""
    rows = []
    for library in LIBRARIES:
        for total in SIZES:
            ratios = sorted(
                (case["ratio"], case["kind"]) for case in cases if (case["library"], case["tokens"]) == (library, total)
            )
            if ratios:
                median = statistics.median(ratio for ratio, _ in ratios)
                rows.append({
                    "library": library,
                    "tokens": total,
                    "worst": ratios[0],
                    "median": median,
                    "best": ratios[-1],
                })
    return rows


def main(
    repeats: Annotated[int, typer.Option(help="Turns of each, fewer from 7,290 tokens on.")] = 15,
    largest: Annotated[int, typer.Option(help="Largest number of tokens.")] = 20_000,
) -> None:
    """Time all kinds at all sizes; write results/selection_kinds.json."""
    torch.set_num_threads(1)
    conditions = {"threads": 1, "dtype": "float32", "heads": HEADS, "query heads": QUERY_HEADS, "width": WIDTH}
    about = header("python benchmarks/bench_selection_kinds.py", **conditions, repeats=repeats)
    about["fewer repeats"] = {str(total): turns for total, turns in FEWER_TURNS.items()}
    about["load average of the machine"] = os.getloadavg()
    cases: list[dict[str, Any]] = []
    for total in [total for total in SIZES if total <= largest]:
        for share in SIZES[total]:
            for kind in (*KINDS, *(CAPTURED if total <= MOST_CAPTURED else ())):
                for library in LIBRARIES:
                    turns = min(repeats, FEWER_TURNS.get(total, repeats))
                    cases.append(run_case(total, share, kind, library, turns))
        write("selection_kinds", {**about, "summary": summarise(cases), "cases": cases})  # the last ones take long
    for row in summarise(cases):
        (worst, where), (best, there) = row["worst"], row["best"]
        print(
            f"{row['library']:6} {row['tokens']:>6}  worst {worst:5.2f} ({where})  median {row['median']:5.2f}  "
            f"best {best:5.2f} ({there})"
        )


if __name__ == "__main__":
    typer.run(main)

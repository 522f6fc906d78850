"""What selecting costs beside a pruned prefill: short and long questions, one layer that scores and four.

A random 28-layer Qwen2.5-VL on one thread, 1,600 visual tokens, 11.1 % kept from layer 4 on. Seconds are processor time
of the thread, so that shares hold on a machine with other work; rules take turns. Rows that are there are kept.
Run: ``python benchmarks/bench_selection_share.py``.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries are first imported, hence before them

import argparse  # noqa: E402 - after the threads are set
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from typing import Any  # noqa: E402
from unittest.mock import patch  # noqa: E402

import torch  # noqa: E402
from _harness import ABOVE, PAPER, PRESET, RESULTS, header, write_to  # noqa: E402
from accuracy_results import opened, tell_resumed  # noqa: E402
from bench_prefill import build_inputs, build_model  # noqa: E402
from pooling_rules import maximum  # noqa: E402

from iwp_transformers import prune_visual_tokens  # noqa: E402
from iwp_transformers.presets import ABOVE_CHANCE, PER_QUERY  # noqa: E402

LAYER, BUDGET, SIDE, BEFORE = 4, 0.111, 40, 14
QUESTIONS = (64, 1024)
RULES: Mapping[str, Mapping[str, Any]] = {
    PAPER: {},
    PRESET: PER_QUERY,
    ABOVE: ABOVE_CHANCE,
    f"{PRESET}, four layers": {**PER_QUERY, "layers": 4},
    "maximum": maximum(PER_QUERY),
    "maximum, four layers": {**maximum(PER_QUERY), "layers": 4},
}


def key(rule: str, question: int) -> str:
    """Return the name of a row."""
    return f"{rule} | {question} question tokens"


def measured(model: Any, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, float]:
    """Return the processor seconds of selecting and of the whole pruned prefill."""
    with (
        patch("iwp_transformers.stopwatch.perf_counter", time.thread_time),
        prune_visual_tokens(model, budget=BUDGET, layer=LAYER, **options) as session,
        torch.no_grad(),
    ):
        began = time.thread_time()
        model(**inputs, logits_to_keep=1, use_cache=True)
        whole = time.thread_time() - began
    return {"selecting": session.records[-1].summary().selection_seconds, "prefill": whole}


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_model(28, 896, 4864, "cpu", torch.float32)
    conditions = {"visual": SIDE**2, "layer": LAYER, "budget": BUDGET, "clock": "processor time of one thread"}
    command = f"python benchmarks/bench_selection_share.py --repeats {options.repeats}"
    now, output = header(command, **conditions), RESULTS / "selection_share_cpu.json"
    result = opened(output, now, conditions, "rows")
    tell_resumed(result, now)
    for question in QUESTIONS:
        inputs = build_inputs(SIDE, BEFORE + question, "cpu", torch.float32)
        missing = [rule for rule in RULES if key(rule, question) not in result["rows"]]
        times: dict[str, list[dict[str, float]]] = {rule: [] for rule in missing}
        for _ in range(options.repeats):
            for rule, each in times.items():
                each.append(measured(model, inputs, RULES[rule]))
        for rule, each in times.items():
            share = statistics.median(one["selecting"] / one["prefill"] for one in each)
            result["rows"][key(rule, question)] = {"share": share, "seconds": each}
    write_to(output, result)
    for name, row in result["rows"].items():
        print(f"{name}: {row['share']:.1%} of the pruned prefill")


if __name__ == "__main__":
    main()

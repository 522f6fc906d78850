"""What selecting costs beside a pruned prefill: short and long questions, one layer that scores and four.

A random 28-layer Qwen2.5-VL on one thread, 1,600 visual tokens. Seconds are CPU time of the thread; ratios are of one
forward each, in turns. Run: ``OMP_NUM_THREADS=1 python benchmarks/bench_selection_share.py``.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import torch
from _harness import PAPER, PRESET, header, write
from bench_prefill import build_inputs, build_model

from iwp_transformers import prune_visual_tokens
from iwp_transformers.presets import ANY_QUERY, PER_QUERY

ANY = "any-query preset (ours)"
LAYER, BUDGET, SIDE, BEFORE = 4, 0.111, 40, 14
QUESTIONS = (64, 1024)
RULES: Mapping[str, Mapping[str, Any]] = {
    PAPER: {},
    PRESET: PER_QUERY,
    f"{PRESET}, four layers": {**PER_QUERY, "layers": 4},
    ANY: ANY_QUERY,
    f"{ANY}, four layers": {**ANY_QUERY, "layers": 4},
}


def measured(model: Any, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float, float]:
    """Return the CPU seconds of selecting and of the whole pruned prefill."""
    with (
        patch("iwp_transformers.stopwatch.perf_counter", time.thread_time),
        prune_visual_tokens(model, budget=BUDGET, layer=LAYER, **options) as session,
        torch.no_grad(),
    ):
        began = time.thread_time()
        model(**inputs, logits_to_keep=1, use_cache=True)
        whole = time.thread_time() - began
    selecting = session.records[-1].summary().selection_seconds
    return float(selecting), whole


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_model(28, 896, 4864, "cpu", torch.float32)
    cells: dict[str, Any] = {}
    for question in QUESTIONS:
        inputs = build_inputs(SIDE, BEFORE + question, "cpu", torch.float32)
        times: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        for _ in range(options.repeats):
            for rule, each in times.items():
                each.append(measured(model, inputs, RULES[rule]))
        for rule, each in times.items():
            share = statistics.median(selecting / whole for selecting, whole in each)
            cells[f"{rule} | {question} question tokens"] = {"share": share, "seconds": each}
            print(f"{rule}, {question} question tokens: {share:.1%} of the pruned prefill")
    conditions = {"visual": SIDE**2, "layer": LAYER, "budget": BUDGET, "clock": "CPU time of one thread"}
    write(
        "selection_share_cpu",
        {
            "header": header("OMP_NUM_THREADS=1 python benchmarks/bench_selection_share.py", **conditions),
            "cells": cells,
        },
    )


if __name__ == "__main__":
    main()

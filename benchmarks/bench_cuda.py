"""What pruning costs and brings on one CUDA GPU: correctness, selection, prefill and decoding, and the bars they meet.

Run: ``python benchmarks/bench_cuda.py`` (under eight minutes on one GPU; needs no network). It writes cuda.json,
cuda_selection.png and cuda_prefill.png to benchmarks/results. Each part has a share of the time; what does not fit is
recorded as not run. ``--rehearse --output FOLDER`` runs every part in miniature on a CPU: its numbers mean nothing.
"""

import argparse
import math
import secrets
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cuda_correctness
import cuda_prefill
import cuda_selection
import torch
from _harness import RESULTS, header, write_to
from cuda_bars import bars
from cuda_clock import Allowance, Clock, gpu, reason
from cuda_models import TINY

PARTS = {"correctness": 0.2, "selection": 0.38, "models": 0.42}
"""The parts, and the share of the time that each has; what one leaves over goes to those after it."""

NOTES = {
    "inputs": "selection is timed on the same inputs again and again: they are in the device's cache where they fit",
    "rivals": "timed from given features, text and relevance; CLIP's text tower and attention are not counted",
    "models": "random weights; the vision tower runs once a picture and is timed apart, prefill starts from its output",
    "decoder seconds": "the language model's forward without its head, all that pruning adds included",
}


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--rehearse", action="store_true", help="run in miniature on a CPU; needs --output")
    parser.add_argument("--minutes", type=float, default=7.0, help="time for all parts together")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--seed", type=int, help="of all inputs (default: a fresh one, recorded)")
    parser.add_argument("--commit", help="what to record where the checkout has no Git")
    peaks = parser.add_argument_group("assumed peaks of the device, from which the limits are computed (one H200)")
    peaks.add_argument("--bandwidth", type=float, default=4.3e12, help="bytes a second")
    peaks.add_argument("--flops-bfloat16", type=float, default=790e12, help="operations a second, dense")
    peaks.add_argument("--flops-float32", type=float, default=67e12, help="operations a second, without TF32")
    options = parser.parse_args(arguments)
    if options.rehearse and options.output is None:
        parser.error("--rehearse needs --output: its numbers must not lie among the results")
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("a CUDA GPU is needed, and torch sees none; --rehearse --output FOLDER runs without one")
    if options.output is None:
        options.output = RESULTS
    if options.seed is None:
        options.seed = secrets.randbits(31)
    return options


def plans(options: argparse.Namespace) -> dict[str, Any]:
    """Return what each part does, in full or in miniature."""
    if not options.rehearse:
        return {
            "correctness": cuda_correctness.Plan(),
            "selection": cuda_selection.Plan(),
            "models": cuda_prefill.Plan(),
        }
    return {
        "correctness": cuda_correctness.Plan(sizes=(37,), budgets=(1, 0.353), variant_size=40),
        "selection": cuda_selection.Plan(
            sizes=(24, 48), shares=(0.25, 0.5), feature_width=32, text_tokens=5, enough=0.001, patience=math.inf
        ),
        "models": cuda_prefill.Plan(
            shapes=TINY, tokens=(48, 24), batches=(1, 2), budgets=(0.111, 0.353), text=20, decoded=2, enough=0.001
        ),
    }


def runners(options: argparse.Namespace, show: Callable[[str, Any], None]) -> dict[str, Callable[[Allowance], Any]]:
    """Return what runs each part within an allowance."""
    plan = plans(options)
    device = torch.device("cpu" if options.rehearse else "cuda")
    clock = Clock(device)
    peaks = cuda_selection.Peaks(
        bytes_per_second=options.bandwidth,
        flops={"bfloat16": options.flops_bfloat16, "float32": options.flops_float32},
    )
    return {
        "correctness": lambda left: cuda_correctness.run(plan["correctness"], device, options.seed, left),
        "selection": lambda left: cuda_selection.run(
            plan["selection"], clock, options.seed, peaks, left, lambda cases: show("selection", cases)
        ),
        "models": lambda left: cuda_prefill.run(
            plan["models"], clock, options.seed, left, lambda entries: show("models", entries)
        ),
    }


def draw(result: dict[str, Any], folder: Path) -> None:
    """Draw what was measured."""
    from cuda_plots import prefill_figure, selection_figure  # noqa: PLC0415 - the numbers must not hang on Matplotlib

    for part, figure in (("selection", selection_figure), ("models", prefill_figure)):
        if result.get(part):
            name = {"selection": "cuda_selection", "models": "cuda_prefill"}[part]
            drawn = figure(result[part])
            if result["rehearsal"]:
                drawn.suptitle("rehearsal on a CPU: these numbers mean nothing")
            drawn.savefig(folder / f"{name}.png", dpi=120)


def judged(options: argparse.Namespace, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the results against the bars."""
    plan = plans(options)
    sizes, shapes = plan["selection"].sizes, plan["models"].shapes
    # The size that the bars name is the one whose prefill is measured too.
    total = max(size for size in sizes if size in plan["models"].tokens)
    listed = bars(total, max(sizes), tuple(shape.family for shape in shapes), cuda_correctness.BARS)
    return [bar.judge(result, rehearsal=options.rehearse) for bar in listed]


def main(arguments: list[str] | None = None) -> None:
    """Run the parts, write the results as they come, draw them, and say which bars are met."""
    options = parsed(arguments)
    began, allowance = time.monotonic(), Allowance(60 * options.minutes)
    conditions: dict[str, Any] = {"rehearsal": options.rehearse, "seed": options.seed, "gpu": gpu(), "notes": NOTES}
    if options.commit:
        conditions["commit"] = options.commit
    settings = ("minutes", "parts", "bandwidth", "flops_bfloat16", "flops_float32")
    conditions["settings"] = {name: getattr(options, name) for name in settings}
    command = shlex.join(["python", "benchmarks/bench_cuda.py", *(sys.argv[1:] if arguments is None else arguments)])
    result: dict[str, Any] = header(command, **conditions)

    def show(part: str, found: Any) -> None:
        result[part] = found
        write_to(options.output / "cuda.json", result)

    left = 1.0
    for part, run in runners(options, show).items():
        if part in options.parts:
            print(f"{part} ...", flush=True)
            try:
                show(part, run(allowance.part(PARTS[part] / left)))
            except Exception as error:  # the other parts may still run, and what this one has shown stays
                result.setdefault("failed", {})[part] = reason(error)
        left -= PARTS[part]
    show("bars", judged(options, result))
    try:
        draw(result, options.output)
    except ImportError as error:
        result["not drawn"] = reason(error)
    show("seconds in all", time.monotonic() - began)
    for bar in result["bars"]:
        verdict = {True: "met", False: "NOT MET", None: "not judged"}[bar["met"]]
        print(f"{verdict:10} {bar['claim']}: {bar['measured']} (needed {bar['needed']})")
    print(options.output / "cuda.json")
    if "failed" in result:
        sys.exit(f"failed: {result['failed']}")


if __name__ == "__main__":
    main()

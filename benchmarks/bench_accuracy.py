"""How many answers a trained miniature still gets right when visual tokens are dropped, rule by rule.

Every rule runs through the public `prune_visual_tokens`, every answer through `generate`. What is the same for all
rules is computed once: the tower, and the layers before the one that prunes. Cells already in the result file are kept,
so an interrupted run goes on. Run: ``python benchmarks/bench_accuracy.py llava-onevision``.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import chain, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from _harness import RESULTS, header, read, write_to
from accuracy_rules import ABLATIONS, CLAIMED, MAIN, Asked, options
from answers import Flags, accuracies
from rich.progress import track
from torch import Tensor

from iwp_miniature import ARCHITECTURES, Example, Miniature, draw_examples, in_batches, load_miniature
from iwp_transformers import family_of, prune_visual_tokens

BUDGETS = (0.353, 0.222, 0.111, 0.056)
LAYERS = (1, 2, 3, 4, 5, 6)
ABLATION_LAYERS, ABLATION_BUDGETS = (2, 3), (0.222, 0.111)
BATCH = 75


@dataclass(frozen=True)
class Batch:
    """Some questions, encoded.

    Parameters
    ----------
    asked : Asked
        What a rule may know.
    inputs : dict
        What `generate` is called with, the tower's features in place of pixels.
    outputs : dict
        What a layer that stands before the one that prunes has returned, by its index.
    """

    asked: Asked
    inputs: dict[str, Any]
    outputs: dict[int, Any] = field(default_factory=dict)


class Evaluation:
    """The test questions, encoded once, and the answers of one miniature under any rule."""

    def __init__(self, miniature: Miniature, examples: Sequence[Example]) -> None:
        self.miniature, self.examples = miniature, examples
        self.layers: Sequence[Any] = miniature.model.model.language_model.layers
        self.batches = []
        for batch in in_batches(examples, BATCH):
            inputs = miniature.encode([each.scene.image for each in batch], [each.question.text for each in batch])
            regions = family_of(miniature.model).regions(miniature.model.config, inputs, 0)
            self.batches.append(Batch(Asked(batch, regions), with_features(miniature.model, inputs)))
        self.kinds = np.array([each.question.kind for each in examples])
        self.styles = np.array([each.scene.layout.style for each in examples])

    def right(self, around: Callable[[Batch], Any]) -> Flags:
        """Tell which questions are answered right; `around` gives a context for each batch."""
        words = []
        for batch in self.batches:
            with around(batch):
                words += self._answers(batch.inputs)
        return self._compared(words)

    def pruned(self, rule: str, layer: int, budget: float) -> Flags:
        """Tell which questions are answered right under a rule."""

        @contextmanager
        def around(batch: Batch) -> Iterator[None]:
            chosen = options(rule, batch.asked)
            with (
                remembered(self.layers[:layer], batch.outputs),
                prune_visual_tokens(self.miniature.model, budget=budget, layer=layer, **chosen),
            ):
                yield

        return self.right(around)

    def without_picture(self) -> Flags:
        """Tell which questions are answered right from the text alone."""
        words = []
        for batch in self.batches:
            words += self._answers(self.miniature.encode_text([each.question.text for each in batch.asked.examples]))
        return self._compared(words)

    def without_visual_tokens(self, layer: int) -> Flags:
        """Tell which questions are answered right if layers from `layer` on see no visual token at all."""
        token = self.miniature.model.config.image_token_id
        return self.right(lambda batch: hidden_from(self.layers[layer:], batch.inputs["input_ids"] == token))

    def _compared(self, words: Sequence[str]) -> Flags:
        return np.array([word == each.question.answer for word, each in zip(words, self.examples, strict=True)])

    def _answers(self, inputs: Mapping[str, Any]) -> list[str]:
        with torch.no_grad():
            output = self.miniature.model.generate(**inputs, do_sample=False, max_new_tokens=1)
        return self.miniature.tokenizer.batch_decode(output[:, -1:])


def with_features(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Replace pixels by what the tower makes of them: the tower is the same for every rule."""
    pixels = {name: inputs[name] for name in ("pixel_values", "image_sizes", "image_grid_thw") if name in inputs}
    with torch.no_grad():
        features = model.model.get_image_features(**pixels, return_dict=True)
    return {name: value for name, value in inputs.items() if name != "pixel_values"} | {
        "mm_encoder_outputs": {"image": features}
    }


@contextmanager
def remembered(layers: Sequence[Any], outputs: dict[int, Any]) -> Iterator[None]:
    """Let the first layers run once and then return the same, with their hooks called; for answers of one forward."""

    def forward(index: int, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if index not in outputs:
            outputs[index] = run(*args, **kwargs)
        return outputs[index]

    with ExitStack() as patches:
        for index, layer in enumerate(layers):
            patches.enter_context(patch.object(layer, "forward", partial(forward, index, layer.forward)))
        yield


@contextmanager
def hidden_from(layers: Sequence[Any], visual: Tensor) -> Iterator[None]:
    """Forbid layers to attend to visual tokens, in a prefill of full length."""

    def hide(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        length = visual.shape[1]
        mask = kwargs.get("attention_mask")
        allowed = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        if mask is not None:
            allowed = mask if mask.dtype == torch.bool else mask == 0
        # Each row may see itself, else a visual row would attend to nothing at all.
        allowed = allowed & (~visual[:, None, None, :] | torch.eye(length, dtype=torch.bool))
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(args[0].dtype).min)
        return args, kwargs | {"attention_mask": bias.to(args[0].dtype)}

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(hide, with_kwargs=True))
        yield


def trained(folder: Path) -> dict[str, Any]:
    """Tell which weights a folder holds: the seed of their training and a digest."""
    log = read(folder / "training.json")
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {"training_seed": log and log["recipe"]["seed"], "weights_sha256": digest[:16]}


def summary(evaluation: Evaluation, right: Flags, full: Flags | None) -> dict[str, Any]:
    """Return what the result file holds of some answers: accuracies in per cent, and every answer as a bit."""
    told = accuracies(right, evaluation.kinds, evaluation.styles, full=full)
    return told | {"right": np.packbits(right).tobytes().hex()}


def answered(entry: Mapping[str, Any], questions: int) -> Flags:
    """Return which questions were answered right, from the `summary` that holds them as bits."""
    packed = np.frombuffer(bytes.fromhex(entry["right"]), dtype=np.uint8)
    return np.unpackbits(packed)[:questions].astype(bool)


Cell = tuple[str, int, float]
SETS: dict[str, list[Cell]] = {
    "none": [],
    "claims": [*product(CLAIMED, ABLATION_LAYERS, ABLATION_BUDGETS)],
    "quick": [*product(MAIN, ABLATION_LAYERS, ABLATION_BUDGETS)],
    "budgets": [*product(MAIN, ABLATION_LAYERS, BUDGETS)],
    "ablations": [*product(ABLATIONS, ABLATION_LAYERS, ABLATION_BUDGETS)],
    "layers": [*product(MAIN, LAYERS, ABLATION_BUDGETS)],
    "main": [*product(MAIN, LAYERS, BUDGETS)],
}
SETS["all"] = list(dict.fromkeys(chain.from_iterable(SETS.values())))
"""What may be asked for, each a list of rules with layer and budget; all of them in the order of what tells most."""


def key(rule: str, layer: int, budget: float) -> str:
    """Return the name of a cell in the result file."""
    return f"{rule} | layer {layer} | {budget:.1%}"


def main(given: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(ARCHITECTURES))
    parser.add_argument("--folder", type=Path, help="weights to measure; default: those that are shipped")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--per-kind", type=int, default=125, help="questions a kind and style of scene (18 of them)")
    parser.add_argument("--rules", choices=list(SETS), default="all")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(given)
    output = arguments.output or RESULTS / f"accuracy_{arguments.model}.json"
    miniature = load_miniature(arguments.model, arguments.folder)
    examples = draw_examples(miniature.architecture, split=arguments.split, per_kind=arguments.per_kind, seed=1)
    evaluation = Evaluation(miniature, examples)
    conditions = {"model": arguments.model, "split": arguments.split, "questions": len(examples), "dtype": "float32"}
    conditions |= trained(Path(miniature.model.name_or_path))
    size = f"--per-kind {arguments.per_kind} --rules {arguments.rules}"
    place = f" --folder {arguments.folder.name}" if arguments.folder else ""
    now = header(f"python benchmarks/bench_accuracy.py {arguments.model}{place} {size}", **conditions)
    result = read(output) or {"header": now, "cells": {}}
    if any(result["header"][name] != value for name, value in conditions.items()):
        parser.error(f"--output {output} holds another measurement: {result['header']}")
    measured: dict[str, Any] = result["cells"]

    def enter(name: str, right: Flags) -> None:
        full = None if name == "full" else answered(measured["full"], len(examples))
        measured[name] = summary(evaluation, right, full)

    for name, entry in measured.items():
        enter(name, answered(entry, len(examples)))
    measure: dict[str, Callable[[], Flags]] = {
        "full": lambda: evaluation.right(lambda _batch: nullcontext()),
        "no picture": evaluation.without_picture,
        **{
            f"no visual token | layer {layer}": partial(evaluation.without_visual_tokens, layer)
            for layer in (1, 2, 3, 4)
        },
        **{key(*cell): partial(evaluation.pruned, *cell) for cell in SETS[arguments.rules]},
    }
    missing = [name for name in measure if name not in measured]
    if missing and now["commit"] != result["header"]["commit"]:
        result["header"].setdefault("resumed", []).append({name: now[name] for name in ("commit", "date", "command")})
    for name in track(missing, description=arguments.model):
        enter(name, measure[name]())
        write_to(output, result)


if __name__ == "__main__":
    main()

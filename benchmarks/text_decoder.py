"""A pretrained decoder that reads passages, and how far its predictions move if a layer's candidates are dropped.

A passage is read up to its last tokens, which ask; what comes before them, but for the first token, where attention
rests, are candidates. The passages are Python's own documentation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

__all__ = ["ASKING", "LENGTH", "Decoder", "Inputs", "LayerInput", "Rule"]

ASKING, LENGTH = 32, 256


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
    hidden, normed : Tensor, shape (N, E)
        The candidates' states, and what the layer's norm makes of them.
    """

    keys: Tensor
    rotated_keys: Tensor
    values: Tensor
    queries: Tensor
    rotated_queries: Tensor
    context: Tensor
    hidden: Tensor
    normed: Tensor


Inputs = Sequence[LayerInput]
"""Of one passage, at the entrance of every layer up to the one that prunes."""
Rule = Callable[[Inputs, int], Tensor]
"""Takes them and how many to keep; gives positions among the candidates."""


class Decoder:
    """A pretrained decoder and passages, and what becomes of its predictions under any rule."""

    def __init__(self, folder: Path, passages: int, seed: int) -> None:
        gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
        source = {"gguf_file": gguf.name} if gguf else {}
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source)
        self.ids = _passages(AutoTokenizer.from_pretrained(folder, **source), passages, seed)
        self.layers = self.model.model.layers
        # Gemma 3 turns some layers by another base than others, and lets those see only so far.
        config = self.model.config
        self._kinds = getattr(config, "layer_types", None) or [None] * len(self.layers)
        if "sliding_attention" in self._kinds and config.sliding_window < LENGTH:
            msg = f"`folder` holds a decoder whose window is {config.sliding_window}, expected {LENGTH} or more"
            raise ValueError(msg)
        positions = torch.arange(LENGTH)[None]
        with torch.no_grad():
            like = self.model.model.embed_tokens(self.ids[:1])
            self.rotary: dict[str | None, tuple[Tensor, Tensor]] = {
                kind: self.model.model.rotary_emb(like, positions, *filter(None, [kind])) for kind in set(self._kinds)
            }
            self.entering, wanted = [], []
            for ids in self.ids:
                states = [self.model.model.embed_tokens(ids[None])]
                for index in range(len(self.layers)):
                    states.append(self._step(index, states[-1], positions[0]))
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
                for index in range(layer, len(self.layers)):
                    now = self._step(index, now, stay)
                said = self._predictions(now)[0]
            found.append(float((wanted.exp() * (wanted - said)).sum(-1).mean()))
        return np.array(found)

    def _step(self, index: int, states: Tensor, positions: Tensor) -> Tensor:
        layer = self.layers[index]
        cosine, sine = (part[:, positions] for part in self.rotary[self._kinds[index]])
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
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        q = q * attention.scaling * math.sqrt(attention.head_dim)  # rules divide logits by the root of the width
        rotated_q, rotated_k = apply_rotary_pos_emb(q, k, *self.rotary[self._kinds[index]])
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
            normed[0, candidates],
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

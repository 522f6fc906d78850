"""A prompt in chunks: layers that prune wait for the last one, and then run on what stays of the whole prompt.

`generate` runs all layers on each chunk in turn. Those before the first layer that prunes do so here too. Of the
others, the ones by which Transformers counts tokens run on copies of their caches, and the rest on one row without a
cache, until the question is complete. What they were about to be called with is held, put together, and pruned as in
one piece.
"""

import weakref
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.utils.generic import ModelOutput

from iwp_transformers.arguments import ShortenedArguments
from iwp_transformers.chunks import Chunk
from iwp_transformers.cost import layer_structure
from iwp_transformers.deepstack import DeepFeatures, joined_features
from iwp_transformers.joined_chunks import JoinedChunks
from iwp_transformers.plan import PruningPlan
from iwp_transformers.prefill import Prefill
from iwp_transformers.rows import KeptRows
from iwp_transformers.versions import cache_in
from iwp_transformers.waiting_layers import WaitingLayers

__all__ = ["ChunkedPrefill"]


class ChunkedPrefill:
    """What is held of a prompt from its first chunk to its last.

    It holds no cache, and is forgotten with that of the prompt.

    Parameters
    ----------
    plan : PruningPlan
        What to do.
    chunk : Chunk
        The first chunk.
    cache : transformers.Cache
        The cache, empty.
    """

    def __init__(self, plan: PruningPlan, chunk: Chunk, cache: Cache) -> None:
        self._cache = weakref.ref(cache)
        self._plan, self._pieces, self._lengths = plan, chunk.pieces, chunk.lengths
        self._first, self._removal = plan.stages[0].layer, plan.removal(plan.stages[0])
        self._read = _layers_read(plan)
        self._waiting = WaitingLayers(cache, self._first, self._removal, len(plan.layers))
        self._joined = JoinedChunks(len(chunk.pieces[0]), chunk.lengths)
        self._hidden: dict[int, list[Tensor]] = {}
        self._arguments: dict[int, list[dict[str, Any]]] = {}
        self._deep: list[DeepFeatures | None] = []
        self._copies: dict[int, tuple[object, Any]] = {}
        self._prefill: Prefill | None = None

    def forget_in(self, held: MutableMapping[Cache, "ChunkedPrefill"]) -> None:
        """Take this prompt out of those that are held."""
        cache = self._cache()
        if cache is not None:
            held.pop(cache, None)

    def continues_with(self, chunk: Chunk) -> bool:
        """Tell whether a chunk is the next one of the prompt."""
        return chunk.pieces is self._pieces and chunk.index == len(self._deep)

    def begin(self, deep: DeepFeatures | None) -> None:
        """Begin with the next chunk, between whose layers the decoder would add some features."""
        self._deep.append(deep)
        self._copies = {}

    def whole_features(self) -> DeepFeatures | None:
        """Return what the decoder would add between its layers in one piece."""
        return joined_features(self._deep, [piece.shape for piece in self._pieces])

    def complete(self, prefill: Prefill) -> None:
        """Learn what the prompt is, before the layers of its last chunk."""
        self._prefill = prefill

    def enter(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return what layer `index` gets in place of what it is about to get for a chunk, `hidden` of (B, C, E)."""
        if index < self._first:
            self._pass(index, hidden, arguments)
            deep = self._deep[-1]
            return hidden if deep is None else deep.added(index, hidden, None), dict(arguments)
        if index == self._first:
            self._hold_hidden(index, hidden)
        self._hold_arguments(index, arguments)
        if self._prefill is not None:
            self._waiting.stop(cache_in(arguments), index)
            hidden = self._whole_hidden(index) if index == self._first else hidden
            return self._prefill.enter(index, hidden, self._whole_arguments(index, arguments))
        return (hidden, dict(arguments)) if index < self._removal else self._idle(index, hidden, arguments)

    def finish(self, output: ModelOutput) -> ModelOutput:
        """Let what the decoder returns have the rows of the chunk; of one but the last, they are zero."""
        last, length = output["last_hidden_state"], self._lengths[len(self._deep) - 1]
        if self._prefill is None:
            output["last_hidden_state"] = last.new_zeros(last.shape[0], length, last.shape[-1])
            return output
        output = self._prefill.finish(output)
        output["last_hidden_state"] = output["last_hidden_state"][:, -length:]
        for name, dim in (("hidden_states", 1), ("attentions", 2)):
            if getattr(output, name, None):
                output[name] = tuple(_newest(part, dim, length) for part in output[name])
        return output

    def _pass(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> None:
        """Hold what is read of a layer that runs on each chunk, and read it once the prompt is complete."""
        if index in self._read:
            self._hold_hidden(index, hidden)
            self._hold_arguments(index, arguments)
            if self._prefill is not None:
                self._prefill.enter(index, self._whole_hidden(index), self._whole_arguments(index, arguments))
        elif self._prefill is not None:
            self._prefill.measure(index, hidden, arguments)

    def _hold_hidden(self, index: int, hidden: Tensor) -> None:
        self._hidden.setdefault(index, []).append(hidden.clone())

    def _hold_arguments(self, index: int, arguments: Mapping[str, Any]) -> None:
        own = {name: self._own(value) for name, value in arguments.items() if not isinstance(value, Cache)}
        self._arguments.setdefault(index, []).append(own)

    def _own(self, value: Any) -> Any:
        """Return a copy, one for all layers that share the value: a compiled graph writes where it wrote before."""
        if not isinstance(value, (Tensor, tuple, list, dict)):
            return value
        if id(value) not in self._copies:
            if isinstance(value, Tensor):
                copy: Any = value.clone()
            elif isinstance(value, dict):
                copy = {name: self._own(part) for name, part in value.items()}
            else:
                copy = type(value)(self._own(part) for part in value)
            # The value is kept beside its copy, so that no other object can come to have its id.
            self._copies[id(value)] = (value, copy)
        return self._copies[id(value)][1]

    def _whole_hidden(self, index: int) -> Tensor:
        return torch.cat(self._hidden.pop(index), dim=1)

    def _whole_arguments(self, index: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        caches = {name: value for name, value in arguments.items() if isinstance(value, Cache)}
        return {**self._joined.arguments(self._arguments.pop(index)), **caches}

    def _idle(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return one row for a layer that waits, and arguments under which it touches no cache."""
        alone = {
            name: None if name == "attention_mask" or isinstance(value, Cache) else value
            for name, value in arguments.items()
        }
        length = self._lengths[len(self._deep) - 1]
        if length == 1:
            return hidden, alone
        place = torch.zeros(hidden.shape[0], 1, dtype=torch.int64, device=hidden.device)
        rows = KeptRows(place, torch.ones_like(place, dtype=torch.bool), length, filled=False)
        row = hidden[:, :1]
        return row, ShortenedArguments(self._plan.config, None, rows, rows.real).shortened(index, row, alone)


def _newest(part: Tensor | None, dim: int, length: int) -> Tensor | None:
    """Return the last rows of an axis; one is None where the caller selected others."""
    return None if part is None else part.narrow(dim, part.shape[dim] - length, length)


def _layers_read(plan: PruningPlan) -> set[int]:
    """Return the layers, of those before the first that prunes, whose inputs views or costs are computed from."""
    first = plan.stages[0].layer
    structures = {layer_structure(layer): index for index, layer in reversed([*enumerate(plan.layers[:first])])}
    return {index for index in (0, first - 1, *plan.scoring_layers, *structures.values()) if 0 <= index < first}

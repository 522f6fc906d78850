"""The chunks that `generate` cuts a prompt into: which of them a model is being called with, and the whole prompt."""

import inspect
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin

from iwp_transformers.frames import outward

__all__ = ["HANDS_OUT_FEATURES", "Chunk", "running_chunk"]

_PREFILL = inspect.unwrap(GenerationMixin._prefill).__code__

HANDS_OUT_FEATURES = "chunk_mm_encoder_outputs" in _PREFILL.co_varnames
"""Whether `generate` gives each chunk the features that it holds; before Transformers 5.24 it loses them."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """One of several chunks of a prompt.

    Attributes
    ----------
    pieces : sequence of torch.Tensor
        The ids of all chunks, each of shape (B, C); one object for all chunks of a prompt.
    index : int
        Which of them the model is called with, from 0; -1 where `generate` does not tell.
    cached : int
        Tokens that the cache held before the first.
    whole : mapping
        What the model would be called with in one piece, by name.
    """

    pieces: Sequence[Tensor]
    index: int
    cached: int
    whole: Mapping[str, Any]

    @property
    def last(self) -> bool:
        """Whether the prompt is complete with this chunk."""
        return self.index == len(self.pieces) - 1

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each chunk."""
        return tuple(piece.shape[1] for piece in self.pieces)

    def brings(self, names: Collection[str]) -> bool:
        """Tell whether the prompt, in this chunk or another, comes with any of some arguments."""
        given = (self.whole.get(name) for name in names)
        return any(bool(value) if isinstance(value, dict) else value is not None for value in given)


def running_chunk(model: nn.Module) -> Chunk | None:
    """Return the chunk that `generate` is calling a model with.

    Parameters
    ----------
    model : torch.nn.Module
        The model with its head.

    Returns
    -------
    Chunk or None
        None where the model is called with a prompt in one piece, or by anybody else.
    """
    # The model may be called through a compiled twin, so that its own frames are not looked for.
    prefills = (frame.f_locals for frame in outward(sys._getframe()) if frame.f_code is _PREFILL)
    known: Mapping[str, Any] = next((each for each in prefills if each.get("self") is model), {})
    pieces = known.get("input_chunks", ())
    return _chunk(known, pieces) if len(pieces) > 1 else None


def _chunk(known: Mapping[str, Any], pieces: Sequence[Tensor]) -> Chunk:
    given = known["model_kwargs"]
    whole = {
        "mm_encoder_outputs": None,
        **given,
        **known.get("token_types", {}),
        # What was taken out of the other arguments, to be cut.
        **{name: known[name] for name in ("attention_mask", "position_ids", "mm_encoder_outputs") if name in known},
        "input_ids": torch.cat(tuple(pieces), dim=1),
    }
    index, seen = known.get("chunk_idx", -1), known.get("past_length")
    if index < 0 or seen is None:
        return Chunk(pieces, -1, 0, whole)
    return Chunk(pieces, index, int(seen) - sum(piece.shape[1] for piece in pieces[:index]), whole)

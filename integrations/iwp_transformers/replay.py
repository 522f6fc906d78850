"""Decoding without a cache: `generate` runs the whole text again for each token, and must not choose anew each time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

from torch import Tensor
from transformers import GenerationConfig

__all__ = ["Replay"]


@dataclass(frozen=True, eq=False)
class Replay:
    """What was kept of a prompt that one `generate` runs again and again.

    Without it, decoded tokens would count as part of the question, and ids decoded with and without a cache differ.

    Attributes
    ----------
    generation : weak reference to GenerationConfig
        The call of `generate`.
    length : int
        Tokens of the prompt, padding counted.
    samples : int
        Samples of the batch.
    kept : sequence of tuple
        For each stage and sample, what was kept.
    """

    generation: "ref[GenerationConfig]"
    length: int
    samples: int
    kept: Sequence[tuple[Any, ...]]

    @classmethod
    def of(cls, generation: GenerationConfig, tokens: Tensor, kept: Sequence[tuple[Any, ...]]) -> "Replay":
        """Remember what was kept of a prompt, `tokens` of shape (B, T)."""
        return cls(ref(generation), tokens.shape[1], tokens.shape[0], kept)

    def kept_for(self, generation: GenerationConfig, tokens: Tensor) -> Sequence[tuple[Any, ...]]:
        """Return what was kept if `tokens` continue the prompt of the same call; nothing otherwise."""
        same = self.generation() is generation and tokens.shape[0] == self.samples and tokens.shape[1] > self.length
        return self.kept if same else ()

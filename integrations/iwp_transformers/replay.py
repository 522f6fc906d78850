"""Decoding without a cache: the prompt runs again for each token, and must not be pruned anew each time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Replay"]


@dataclass(frozen=True, eq=False)
class Replay:
    """What was kept of a prompt that ran without a cache, for the runs that make it longer by a token each.

    Without it, decoded tokens would count as part of the question, and ids decoded with and without a cache differ.

    Attributes
    ----------
    tokens : torch.Tensor
        Shape (B, T): the prompt.
    features : tuple
        The objects that brought its visual features.
    kept : sequence of torch.Tensor, or None
        Positions kept, for each sample; None before that was chosen.
    length : int
        Tokens of the last run.
    """

    tokens: Tensor
    features: tuple[Any, ...]
    kept: Sequence[Tensor] | None
    length: int

    def continued(self, tokens: Tensor, features: tuple[Any, ...]) -> "Replay | None":
        """Return the replay after another run, or None if that is no continuation of this one."""
        if tokens.shape != (self.tokens.shape[0], self.length + 1):
            return None
        if any(mine is not theirs for mine, theirs in zip(self.features, features, strict=True)):
            return None
        if not torch.equal(tokens[:, : self.tokens.shape[1]], self.tokens):
            return None
        return Replay(self.tokens, self.features, self.kept, self.length + 1)

"""What a session was asked to do, and what it knows of each cache that it pruned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from iwp_transformers.families import Family
from iwp_transformers.selection import ImplicitWeightRule, Selector

__all__ = ["CacheMemory", "Entrance", "PruningPlan"]

# The input of a layer and its keyword arguments, as changed; None leaves both alone.
Entrance = tuple[Tensor, dict[str, Any]] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningPlan:
    """What a session was asked to do, with the model it does it to."""

    family: Family
    config: PreTrainedConfig
    layers: Sequence[nn.Module]
    layer: int
    budget: float
    selector: Selector

    @property
    def removal(self) -> int:
        """First layer whose sequence is shorter.

        The first layer's cache tells `generate` how many tokens were seen. So where pruning starts at layer 0, that
        layer keeps all tokens and only hides the dropped ones, which is the same to those that stay.
        """
        return max(self.layer, 1)

    @property
    def by_default_rule(self) -> bool:
        """Whether the paper's rule chooses, which keeps everything when the budget allows it."""
        return isinstance(self.selector, ImplicitWeightRule)


@dataclass(frozen=True, eq=False)
class CacheMemory:
    """What later steps need to know of a cache that was pruned.

    Attributes
    ----------
    real : torch.Tensor
        Shape (B, S), bool: which of all tokens seen are no padding.
    visible : torch.Tensor
        Shape (B, S), bool: which of them were not dropped either.
    columns : torch.Tensor
        Shape (B, K): full position of each row that the shortened layers hold, -1 for filling and padding.
    """

    real: Tensor
    visible: Tensor
    columns: Tensor

    @property
    def seen(self) -> int:
        """Number of tokens S that the first layer holds."""
        return int(self.visible.shape[1])

    def for_batch(self, batch: int) -> "CacheMemory":
        """Return the memory of a cache whose one sample may have been repeated."""
        return CacheMemory(*(part.expand(batch, -1) for part in (self.real, self.visible, self.columns)))

    def extended(self, real: Tensor) -> "CacheMemory":
        """Return the memory after new tokens, of which `real`, shape (B, Q), are no padding."""
        new = torch.arange(self.seen, self.seen + real.shape[1], device=real.device).expand_as(real)
        return CacheMemory(
            real=torch.cat((self.real, real), dim=1),
            visible=torch.cat((self.visible, real), dim=1),
            columns=torch.cat((self.columns, new.where(real, -1)), dim=1),
        )

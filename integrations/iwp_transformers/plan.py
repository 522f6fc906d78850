"""What a session was asked to do, and the model it does it to."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedConfig

from iwp_core import Tolerance
from iwp_transformers.families import Family
from iwp_transformers.layer_kinds import kind_of, removal_layer
from iwp_transformers.selection import Selector
from iwp_transformers.tower import VisionTower

__all__ = ["PruningPlan", "Stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One time that tokens are dropped.

    Attributes
    ----------
    layer : int
        First layer that no longer sees the dropped tokens.
    budget : int, float or Tolerance, or a mapping of str to these
        Visual tokens that stay, of all that a sample had: a count, a share, or as few as an error allows; a mapping has
        it for each modality.
    """

    layer: int
    budget: float | Tolerance | Mapping[str, float | Tolerance]


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningPlan:
    """What a session was asked to do, with the model it does it to.

    Attributes
    ----------
    family : Family
        What is known of the model.
    model, inner, text : torch.nn.Module
        The model as given, the part that is called with ids and features, and its decoder.
    layers : sequence of torch.nn.Module
        The decoder's layers.
    stages : tuple of Stage
        By ascending layer.
    selector : callable
        The rule that chooses.
    gather : callable, optional
        Gathers heads from all ranks, where the model is sharded.
    tower : VisionTower, optional
        The vision tower, where the rule reads it.
    scoring_layers : tuple of int
        Layers whose scores of the tokens are pooled, ascending; empty where it is only the one that prunes.
    """

    family: Family
    model: nn.Module
    inner: nn.Module
    text: nn.Module
    layers: Sequence[nn.Module]
    stages: tuple[Stage, ...]
    selector: Selector
    gather: Callable[[Tensor], Tensor] | None
    tower: VisionTower | None = None
    scoring_layers: tuple[int, ...] = ()

    @cached_property
    def config(self) -> PreTrainedConfig:
        """Configuration of the decoder."""
        return cast("PreTrainedConfig", self.text.config)

    @cached_property
    def model_config(self) -> PreTrainedConfig:
        """Configuration of the multimodal model."""
        return cast("PreTrainedConfig", self.inner.config)

    @cached_property
    def first(self) -> int:
        """First layer that anything is done at, or read from."""
        return max(self.stages[0].layer - 1, 0)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """What each layer lets a token see."""
        return tuple(kind_of(self.config, index) for index in range(len(self.layers)))

    @cached_property
    def longest(self) -> int | None:
        """Tokens up to which the decoder is exact; None where there is no such limit."""
        return None if self.family.longest is None else self.family.longest(self.text)

    @cached_property
    def named(self) -> Collection[str] | None:
        """The modalities that the budget names; None where it names none."""
        budget = self.stages[0].budget
        return budget.keys() if isinstance(budget, Mapping) else None

    def removal(self, stage: Stage) -> int:
        """Return the first layer whose sequence is shorter: the stage's own, or a later one."""
        return removal_layer(self.kinds, stage.layer)

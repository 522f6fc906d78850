"""Schedules of methods that drop tokens at several layers, scaled to the depth of a model and to a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import ClassVar

from iwp_core.budget import Tolerance, check_budget
from iwp_transformers.methods._method import Budget, Layers, Method

__all__ = ["Schedule", "Staged"]

ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """At which layers a paper drops tokens, and how many stay.

    Attributes
    ----------
    depth : int
        Number of decoder layers of the model for which it was published.
    layers : tuple of int
        Pruning layers, ascending.
    shares : tuple of float
        For each of them, the share of all visual tokens that stays from this layer on.
    """

    depth: int
    layers: tuple[int, ...]
    shares: tuple[float, ...]

    def scaled_layers(self, layers: int, first: int | None) -> tuple[int, ...]:
        """Return the pruning layers for a model of another depth.

        Parameters
        ----------
        layers : int
            Number of decoder layers of the model.
        first : int, optional
            Layer of the first stage. The others keep their relative distance to the last layer.

        Raises
        ------
        ValueError
            If the model has too few layers for the stages.
        """
        begin = layers * self.layers[0] / self.depth if first is None else first
        span = (layers - begin) / (self.depth - self.layers[0])
        found: list[int] = []
        for layer in self.layers:
            # Each reads the layer before: the first can be layer 1, and no two the same.
            least = found[-1] + 1 if found else 1 if first is None else first
            found.append(max(least, int(begin + (layer - self.layers[0]) * span + 0.5)))
        if found[-1] >= layers:
            msg = (
                f"`layer` is not given, or {first}, and the schedule has {len(found)} stages, which the {layers} layers"
                " of the model have no room for; give `layer` and `budget` as tuples of fewer"
            )
            raise ValueError(msg)
        return tuple(found)

    def scaled_budgets(self, layers: Sequence[int], budget: float, depth: int) -> tuple[float, ...]:
        """Scale the shares of the stages so that their mean, over all layers from the first stage on, is the budget.

        Parameters
        ----------
        layers : sequence of int
            Pruning layers of the stages.
        budget : int or float
            Mean number of visual tokens, or their mean share.
        depth : int
            Number of decoder layers of the model.

        Raises
        ------
        TypeError
            If `budget` is not a number.
        ValueError
            If `budget` is out of range, or so large that a stage would keep more than all tokens. The message names the
            nearest budget that is possible.
        """
        check_budget(budget)
        lasting = [after - before for before, after in pairwise((*layers, depth))]
        mean = sum(share * count for share, count in zip(self.shares, lasting, strict=True)) / sum(lasting)
        scale = budget / mean
        if isinstance(budget, Integral):
            return tuple(max(1, int(scale * share + 0.5)) if share else 0 for share in self.shares)
        if max(self.shares) * scale > 1 + ROUNDING:
            nearest = mean / max(self.shares)
            msg = (
                f"`budget` is {budget!r}, the mean share over all layers from {layers[0]} on, and the schedule"
                f" {_shares(self.shares)} of its paper at layers {tuple(layers)} cannot keep so many: the nearest is"
                f" {int(nearest * 1000) / 1000:g}; or give `layer` and `budget` as tuples"
            )
            raise ValueError(msg)
        return tuple(min(1.0, scale * share) if share else 0 for share in self.shares)


def _shares(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.3g}" for share in shares)


@dataclass(frozen=True, kw_only=True)
class Staged(Method):
    """A method whose paper drops tokens at several layers.

    Attributes
    ----------
    schedule : Schedule
        The schedule of the paper.
    """

    acts: ClassVar[str] = "at several decoder layers"
    schedule: ClassVar[Schedule]

    @classmethod
    def published_layers(cls) -> str:
        """Return the pruning layers of the paper, and the depth of its model, in words."""
        return f"{', '.join(map(str, cls.schedule.layers))} of {cls.schedule.depth}"

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
        """Return the stages: what is given as a tuple is taken as it is, the rest follows the schedule of the paper.

        Parameters
        ----------
        layer : int, or tuple of int, or None
            A single number is the layer of the first stage.
        budget : int or float, or tuple of these
            A single number is the mean over all layers from the first stage on.
        layers : int
            Number of decoder layers of the model.

        Returns
        -------
        layer : sequence of int
            Pruning layer of each stage.
        budget : sequence of numbers
            Budget of each stage.

        Raises
        ------
        TypeError
            If `budget` is missing or not a number.
        ValueError
            If the schedule does not fit into the model, cannot meet the budget, or has another number of stages than a
            tuple that is given.
        """
        _, budget = super().stages(layer, budget, layers)
        if isinstance(layer, Sequence) and isinstance(budget, Sequence):
            return layer, budget
        for name, given in (("layer", layer), ("budget", budget)):
            stages = len(self.schedule.layers)
            if isinstance(given, Sequence) and len(given) != stages:
                msg = (
                    f"`{name}` is {given!r}, and {self.name} has {stages} stages: expected as many, or both `layer` and"
                    " `budget` as tuples of one length"
                )
                raise ValueError(msg)
        if not isinstance(layer, Sequence):
            layer = self.schedule.scaled_layers(layers, layer)
        if isinstance(budget, Mapping | Tolerance):
            what = "adapts" if isinstance(budget, Tolerance) else "names modalities"
            msg = f"`budget` is {budget!r}, which {what}: {self.name} has several stages, give a number"
            raise ValueError(msg)
        if not isinstance(budget, Sequence):
            budget = self.schedule.scaled_budgets(layer, budget, layers)
        return layer, budget

"""Schedules of methods that drop at several layers, scaled to a model's depth and to a mean share."""

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
    """Where a paper drops how much.

    Attributes
    ----------
    depth : int
        Decoder layers of the model that it was published for.
    layers : tuple of int
        First layers that no longer see the dropped tokens, ascending.
    shares : tuple of float
        Of all the visual tokens, those that stay from each of them on.
    """

    depth: int
    layers: tuple[int, ...]
    shares: tuple[float, ...]

    def scaled_layers(self, layers: int, first: int | None) -> tuple[int, ...]:
        """Return the layers for a model of another depth.

        Parameters
        ----------
        layers : int
            Decoder layers of the model.
        first : int, optional
            Where the first stage is put; the others then stand as far towards the end as in the paper.

        Raises
        ------
        ValueError
            If the model has fewer layers than the schedule needs.
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
        """Return the budgets of the stages whose mean, over all layers from the first stage on, is a budget.

        Raises
        ------
        TypeError
            If `budget` is no number.
        ValueError
            If `budget` is out of range, or a share that would need a stage with more than all tokens; the message names
            the nearest that does not.
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
    """A method whose paper drops at several layers.

    Attributes
    ----------
    schedule : Schedule
        That of the paper.
    """

    acts: ClassVar[str] = "at several decoder layers"
    schedule: ClassVar[Schedule]

    @classmethod
    def published_layers(cls) -> str:
        """Return at which layers of how many the paper drops."""
        return f"{', '.join(map(str, cls.schedule.layers))} of {cls.schedule.depth}"

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
        """Return the stages: those given as tuples, the rest from the schedule of the paper.

        Parameters
        ----------
        layer : int, or tuple of int, or None
            One number puts the first stage there.
        budget : int or float, or tuple of these, or None
            One number is the mean over all layers from the first stage on.
        layers : int
            Decoder layers of the model.

        Raises
        ------
        TypeError
            If `budget` is missing or no number.
        ValueError
            If the schedule has no room in the model, cannot meet the budget, or has another number of stages than a
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

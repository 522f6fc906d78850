"""V2Drop: at several layers, keep the visual tokens whose states the layer before changed most."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import v2drop
from iwp_transformers.methods._method import Paper, Reads
from iwp_transformers.methods._schedule import Schedule, Staged
from iwp_transformers.view import LayerView

__all__ = ["V2Drop"]


@dataclass(frozen=True, kw_only=True)
class V2Drop(Staged):
    """`iwp_core.methods.v2drop` at several layers, with the schedule that is published for LLaVA-1.5.

    Deviation: from the last stage on no visual token is left. Its share is 0, with which the official code keeps one
    token.
    """

    name: ClassVar[str] = "v2drop"
    paper: ClassVar[Paper | None] = Paper(title="V2Drop", year=2025, arxiv="2509.01552")
    reads: ClassVar[tuple[Reads, ...]] = ("states", "states of the layer before")
    schedule: ClassVar[Schedule] = Schedule(depth=32, layers=(3, 17, 22), shares=(0.5, 0.25, 0.0))

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = v2drop(view.before(view.visual).hidden, view.visual.hidden, view.budget)
        return kept

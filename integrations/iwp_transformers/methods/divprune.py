"""DivPrune: keep visual tokens that are far apart from each other."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import divprune
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["DivPrune"]


@dataclass(frozen=True, kw_only=True)
class DivPrune(Method):
    """`iwp_core.methods.divprune` on the states that enter the pruning layer. The paper prunes at layer 0."""

    name: ClassVar[str] = "divprune"
    paper: ClassVar[Paper | None] = Paper(title="DivPrune", year=2025, arxiv="2503.02175")
    reads: ClassVar[tuple[Reads, ...]] = ("states",)
    layer: ClassVar[int] = 0

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = divprune(view.visual.hidden, view.budget)
        return kept

"""Pooling: one token for each window of the grid."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import pooling
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.methods._quotas import kept_by_grid
from iwp_transformers.view import LayerView

__all__ = ["Pooling"]


@dataclass(frozen=True, kw_only=True)
class Pooling(Method):
    """`iwp_core.methods.pooling` on the states that enter the layer: the token of largest L1 norm of each window.

    Each grid of a prompt (a view, all crops of an image together, a frame; separators are one of a row) has the
    smallest windows of which there are no more than its share of the budget, so that at most the budget is kept.
    """

    name: ClassVar[str] = "pooling"
    paper: ClassVar[Paper | None] = Paper(title="Are We Solving the Right Problem?", year=2025, arxiv="2502.11501")
    reads: ClassVar[tuple[Reads, ...]] = ("states", "grid")
    layer: ClassVar[int] = 2
    own_count: ClassVar[bool] = True

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        hidden = view.visual.hidden

        def kept(grid: Tensor, count: int) -> Tensor:
            height, width = grid.shape
            indices: Tensor = pooling(hidden[grid.flatten()], grid=(height, width), budget=count).kept
            return indices

        return kept_by_grid(view, kept)

"""Pooling: keep one token of each window of the grid."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from iwp_core.methods import pooling
from iwp_transformers.methods._method import Merged, Method, Paper, Reads
from iwp_transformers.methods._quotas import kept_by_grid, quotas
from iwp_transformers.view import LayerView

__all__ = ["Pooling"]


@dataclass(frozen=True, kw_only=True)
class Pooling(Method):
    """`iwp_core.methods.pooling` on the states that enter the pruning layer.

    In each window of a grid, the token of largest L1 norm is kept. The budget is divided among the grids of a prompt in
    proportion to their sizes. A grid is a view, all crops of an image together, or a video frame. Separators form a
    grid with one row. Each grid has the smallest windows with which it keeps at most its part, so at most the budget is
    kept.

    Attributes
    ----------
    reading : {"select", "average"}
        How the paper is read. "select", as its algorithm is printed, keeps the state of the token. "average", as its
        text says, replaces the state by the mean of the window. In both, attention is not weighed by the size of a
        window.
    """

    name: ClassVar[str] = "pooling"
    paper: ClassVar[Paper | None] = Paper(title="Are We Solving the Right Problem?", year=2025, arxiv="2502.11501")
    reads: ClassVar[tuple[Reads, ...]] = ("states", "grid")
    layer: ClassVar[int] = 2
    own_count: ClassVar[bool] = True

    reading: Literal["select", "average"] = "select"

    def __post_init__(self) -> None:
        """Check the reading.

        Raises
        ------
        ValueError
            If `reading` is unknown.
        """
        pooling(torch.ones(1, 1), grid=(1, 1), window=1, reading=self.reading)

    def __call__(self, view: LayerView) -> Tensor | Merged:
        """Return the indices to keep, shape (M,), ascending; with "average", a `Merged` with the windows' means."""
        hidden = view.visual.hidden

        def kept(grid: Tensor, count: int) -> Tensor:
            height, width = grid.shape
            indices: Tensor = pooling(hidden[grid.flatten()], grid=(height, width), budget=count).kept
            return indices

        return kept_by_grid(view, kept) if self.reading == "select" else _averaged(view)


def _averaged(view: LayerView) -> Merged:
    hidden = view.visual.hidden
    counts = quotas([grid.numel() for grid in view.grids], view.budget)
    assignment = torch.full((len(hidden),), -1, dtype=torch.int64, device=hidden.device)
    kept, states, rows = [], [], 0
    for grid, count in zip(view.grids, counts, strict=True):
        if count:
            height, width = grid.shape
            own = grid.flatten()
            merged = pooling(hidden[own], grid=(height, width), budget=count, reading="average")
            assignment[own] = merged.assignment + rows
            kept.append(own[merged.kept])
            states.append(merged.tokens)
            rows += len(merged.kept)
    return Merged(indices=torch.cat(kept), states=torch.cat(states), assignment=assignment)

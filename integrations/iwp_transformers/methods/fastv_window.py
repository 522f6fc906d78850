"""FastV by windows: the same share of every window of the grid, by attention."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import fastv_window
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.methods._quotas import kept_by_grid
from iwp_transformers.view import LayerView

__all__ = ["FastVWindow"]


@dataclass(frozen=True, kw_only=True)
class FastVWindow(Method):
    """`iwp_core.methods.fastv_window` on the last token's attention in the layer before.

    Each grid of a prompt (a view, all crops of an image together, a frame; separators are one of a row) keeps its share
    of the budget.

    Attributes
    ----------
    window : int
        Side of a window, at least 1.
    """

    name: ClassVar[str] = "fastv-window"
    paper: ClassVar[Paper | None] = Paper(title="Are We Solving the Right Problem?", year=2025, arxiv="2502.11501")
    reads: ClassVar[tuple[Reads, ...]] = ("attention of the layer before", "grid")
    layer: ClassVar[int] = 2
    window: int = 4

    def __post_init__(self) -> None:
        """Check the window.

        Raises
        ------
        TypeError, ValueError
            If it is no int >= 1.
        """
        fastv_window(torch.ones(1, 1), 1, grid=(1, 1), window=self.window)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        attention = view.attention_rows()[:, 0]

        def kept(grid: Tensor, count: int) -> Tensor:
            height, width = grid.shape
            own = attention[:, grid.flatten()]
            indices: Tensor = fastv_window(own, count, grid=(height, width), window=self.window)
            return indices

        return kept_by_grid(view, kept)

"""FastV by windows: keep the same share of the tokens in every window of the grid."""

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
    """`iwp_core.methods.fastv_window` on the attention of the last token in the layer before.

    The budget is divided among the grids of a prompt in proportion to their sizes. A grid is a view, all crops of an
    image together, or a video frame. Separators form a grid with one row.

    Attributes
    ----------
    window : int
        Side of a square window, at least 1.
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
        TypeError
            If `window` is not an int.
        ValueError
            If it is below 1.
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

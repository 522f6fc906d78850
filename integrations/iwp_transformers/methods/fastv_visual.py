"""FastV without the question: keep the visual tokens that the last visual token attends to most."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import fastv_visual
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["FastVVisual"]


@dataclass(frozen=True, kw_only=True)
class FastVVisual(Method):
    """`iwp_core.methods.fastv_visual` on the attention of the last visual token in the layer before."""

    name: ClassVar[str] = "fastv-visual"
    paper: ClassVar[Paper | None] = Paper(title="Are We Solving the Right Problem?", year=2025, arxiv="2502.11501")
    reads: ClassVar[tuple[Reads, ...]] = ("attention of the layer before",)
    layer: ClassVar[int] = 2

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        last = view.at(view.visual_positions[-1:])
        kept: Tensor = fastv_visual(view.attention_rows(last)[:, 0], view.budget)
        return kept

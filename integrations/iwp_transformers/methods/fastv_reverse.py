"""FastV reversed: a control that keeps the visual tokens that the last token attends to least."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import fastv_reverse
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["FastVReverse"]


@dataclass(frozen=True, kw_only=True)
class FastVReverse(Method):
    """`iwp_core.methods.fastv_reverse` on the attention of the last token in the layer before."""

    name: ClassVar[str] = "fastv-reverse"
    paper: ClassVar[Paper | None] = Paper(title="Are We Solving the Right Problem?", year=2025, arxiv="2502.11501")
    reads: ClassVar[tuple[Reads, ...]] = ("attention of the layer before",)
    layer: ClassVar[int] = 2

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = fastv_reverse(view.attention_rows()[:, 0], view.budget)
        return kept

"""FastV: keep the visual tokens that the last token of the prompt attends to most."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import fastv
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["FastV"]


@dataclass(frozen=True, kw_only=True)
class FastV(Method):
    """`iwp_core.methods.fastv` on the attention of the last token in the layer before."""

    name: ClassVar[str] = "fastv"
    paper: ClassVar[Paper | None] = Paper(title="FastV", year=2024, arxiv="2403.06764")
    reads: ClassVar[tuple[Reads, ...]] = ("attention of the layer before",)
    layer: ClassVar[int] = 2

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = fastv(view.attention_rows()[:, 0], view.budget)
        return kept

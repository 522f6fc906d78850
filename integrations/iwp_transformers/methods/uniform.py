"""Evenly spaced visual tokens: a deterministic baseline."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import uniform
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["Uniform"]


@dataclass(frozen=True, kw_only=True)
class Uniform(Method):
    """`iwp_core.methods.uniform`: tokens evenly spaced along the sequence."""

    name: ClassVar[str] = "uniform"
    paper: ClassVar[Paper | None] = None
    reads: ClassVar[tuple[Reads, ...]] = ("nothing",)
    layer: ClassVar[int] = 2

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = uniform(view.visual.hidden, view.budget)
        return kept

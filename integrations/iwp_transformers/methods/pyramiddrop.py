"""PyramidDrop: at several layers, keep the visual tokens that the last token attends to most in that layer."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import pyramiddrop
from iwp_transformers.methods._method import Paper, Reads
from iwp_transformers.methods._schedule import Schedule, Staged
from iwp_transformers.view import LayerView

__all__ = ["PyramidDrop"]


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(Staged):
    """`iwp_core.methods.pyramiddrop` at several layers, on the queries and keys of the pruning layer itself."""

    name: ClassVar[str] = "pyramiddrop"
    paper: ClassVar[Paper | None] = Paper(title="PyramidDrop", year=2024, arxiv="2410.17247")
    reads: ClassVar[tuple[Reads, ...]] = ("queries and keys",)
    schedule: ClassVar[Schedule] = Schedule(depth=32, layers=(8, 16, 24), shares=(0.5, 0.25, 0.125))

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        everything, _ = torch.cat((view.visual_positions, view.text_positions)).sort()
        query = view.last.rotated_queries[:, 0]
        keys = view.at(everything).rotated_keys
        keys = keys.repeat_interleave(query.shape[0] // keys.shape[0], dim=0)
        # The published softmax divides by the root of the width; a layer that scales otherwise is met in the query.
        scale = view.scaling * query.shape[-1] ** 0.5
        query = query if abs(scale - 1) <= torch.finfo(torch.float32).eps else query * scale
        kept: Tensor = pyramiddrop(query, keys, torch.searchsorted(everything, view.visual_positions), view.budget)
        return kept

"""Torch versions of the core's overridable functions; their parameters and results are the reference's."""

import torch
from torch import Tensor

__all__ = ["all_finite", "duplication_block", "largest", "take_tokens"]


def all_finite(array: Tensor) -> bool:
    """Sum first: one pass, and a finite sum has finite terms. An infinite one may be overflow, so then look closely."""
    total = array.sum(dtype=torch.float64 if array.dtype == torch.float64 else torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(array).all())


def duplication_block(
    rows: Tensor,
    cols: Tensor,
    other_rows: Tensor | None = None,
    other_cols: Tensor | None = None,
    *,
    gaussian: bool,
) -> Tensor:
    """Do what `iwp_core.duplication.duplication_block` does, in place: the same roundings, a third of the memory."""
    similarity = torch.matmul(rows, cols.mT)
    if gaussian:
        similarity -= 0.5 * torch.sum(rows * rows, dim=-1, keepdim=True)
        similarity -= 0.5 * torch.sum(cols * cols, dim=-1, keepdim=True).mT
        similarity.clamp_(max=0.0).exp_()
    if other_rows is not None and other_cols is not None:
        similarity *= torch.matmul(other_rows, other_cols.mT)
    return similarity.square_().mean(dim=0).clamp_(0.0, 1.0)


def largest(scores: Tensor, count: int) -> Tensor:
    """Select instead of sorting: torch sorts a vector ten times slower than it finds the largest entries."""
    return torch.topk(scores, count).values


def take_tokens(x: Tensor, indices: Tensor) -> Tensor:
    """Copy rows head by head; along a middle axis `index_select` copies element by element."""
    return torch.stack([torch.index_select(head, 0, indices) for head in x])

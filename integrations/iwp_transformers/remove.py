"""Move rows: out of a batch of sequences, and back to where they were. Pure functions on tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KeptRows", "kept_rows", "restore_attentions"]


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Which rows of each sample stay, right-aligned in a rectangle.

    Attributes
    ----------
    index : torch.Tensor
        Shape (B, M), int64: source position of each row, ascending where `real`.
    real : torch.Tensor
        Shape (B, M), bool: False for the rows that only fill the rectangle.
    full : int
        Length T of the sequences the rows came from.
    """

    index: Tensor
    real: Tensor
    full: int

    def to(self, device: torch.device) -> "KeptRows":
        """Return the same rows with their tensors on a device."""
        return KeptRows(self.index.to(device), self.real.to(device), self.full)

    def gather(self, states: Tensor) -> Tensor:
        """Take the rows out of states, shape (B, T, E) or (1, T, E), as (B, M, E)."""
        states = states.expand(self.index.shape[0], -1, -1)
        return states.gather(1, self.index.unsqueeze(-1).expand(-1, -1, states.shape[-1]))

    def scatter(self, states: Tensor) -> Tensor:
        """Put rows, shape (B, M, E), back where they were, (B, T, E); rows without a source are zero."""
        real = self.real.to(states.device).unsqueeze(-1)
        index = self.index.to(states.device).unsqueeze(-1).expand_as(states)
        full = states.new_zeros(states.shape[0], self.full, states.shape[-1])
        return full.scatter(1, index, states.where(real, 0))

    def columns(self) -> Tensor:
        """Return the source position of each row, shape (B, M), with -1 for the rows that only fill up."""
        return self.index.where(self.real, -1)


def kept_rows(keep: Tensor, length: int) -> KeptRows:
    """Lay out the rows that stay.

    Parameters
    ----------
    keep : torch.Tensor
        Shape (B, T), bool.
    length : int
        Largest number of rows kept in a sample, M.

    Returns
    -------
    KeptRows
        Rows in ascending position; samples that keep fewer are filled up from the left.
    """
    # A stable sort puts what goes before what stays, and leaves the order within both alone.
    index = keep.int().argsort(dim=1, stable=True)[:, keep.shape[1] - length :]
    return KeptRows(index, keep.gather(1, index), keep.shape[1])


def restore_attentions(
    attentions: Sequence[Tensor], first: int, rows: Tensor, columns: Tensor, queries: int
) -> tuple[Tensor, ...]:
    """Put attention weights among kept tokens back into the full square; what was dropped weighs zero.

    Parameters
    ----------
    attentions : sequence of torch.Tensor
        One for each layer, shape (B, Hq, Q, K); K may exceed the columns, as it does with a static cache.
    first : int
        First layer that was shortened, at least 1.
    rows, columns : torch.Tensor
        Shapes (B, Q) and (B, C), int64: full position of each query and key, negative for filling.
    queries : int
        Number of queries of the full square.

    Returns
    -------
    tuple of torch.Tensor
        All of the first one's number of keys, since the first layer always holds all tokens.
    """
    shape = (queries, attentions[0].shape[-1])
    return (*attentions[:first], *(_restored(weights, rows, columns, shape) for weights in attentions[first:]))


def _restored(weights: Tensor, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Tensor:
    rows, columns = rows.to(weights.device), columns.to(weights.device)
    weights = weights[..., : columns.shape[1]]
    real = (rows >= 0)[:, None, :, None] & (columns >= 0)[:, None, None, :]
    weights = weights.where(real, 0)
    wide = weights.new_zeros(*weights.shape[:3], shape[1])
    wide = wide.scatter_add(3, columns.clamp(min=0)[:, None, None, :].expand_as(weights), weights)
    tall = weights.new_zeros(*weights.shape[:2], *shape)
    return tall.scatter_add(2, rows.clamp(min=0)[:, None, :, None].expand_as(wide), wide)

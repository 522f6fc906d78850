"""Move rows: out of a batch of sequences, and back to where they were. Pure functions on tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["KeptRows", "kept_rows", "restored_attention"]


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Which rows of each sample stay, right-aligned in a rectangle.

    Attributes
    ----------
    index : torch.Tensor
        Shape (B, M), int64: position in the full sequence of each row, ascending where `real`.
    real : torch.Tensor
        Shape (B, M), bool: False for the rows that only fill the rectangle.
    full : int
        Length T of the full sequences.
    filled : bool
        Whether any row only fills the rectangle.
    """

    index: Tensor
    real: Tensor
    full: int
    filled: bool

    def to(self, device: torch.device) -> "KeptRows":
        """Return the same rows with their tensors on a device."""
        return KeptRows(self.index.to(device), self.real.to(device), self.full, self.filled)

    def first(self, length: int) -> "KeptRows":
        """Return the rows of the first `length` tokens, where all tokens behind them stay in every sample."""
        behind = self.full - length
        count = self.index.shape[1] - behind
        return KeptRows(self.index[:, :count], self.real[:, :count], length, self.filled)

    def behind(self, count: int) -> tuple[Tensor, Tensor]:
        """Return index and `real` of these rows as columns behind `count` others, which all stay."""
        first = torch.arange(count, device=self.index.device).expand(self.index.shape[0], -1)
        return torch.cat((first, self.index + count), dim=1), F.pad(self.real, (count, 0), value=True)

    def followed_by(self, rows: "KeptRows") -> "KeptRows":
        """Return these rows and, behind the sequences that they are from, those of further ones."""
        index = torch.cat((self.index, rows.index + self.full), dim=1)
        real = torch.cat((self.real, rows.real), dim=1)
        return KeptRows(index, real, self.full + rows.full, self.filled or rows.filled)

    def gather(self, states: Tensor, dim: int) -> Tensor:
        """Take the rows out of a tensor whose axis `dim` runs over T, and the one before it over B or 1."""
        index = self.index.to(states.device)
        sizes = list(states.shape)
        sizes[dim - 1] = index.shape[0]
        shape = [1] * states.ndim
        shape[dim - 1], shape[dim] = index.shape
        sizes_taken = list(sizes)
        sizes_taken[dim] = index.shape[1]
        return states.expand(sizes).gather(dim, index.view(shape).expand(sizes_taken))

    def scatter(self, states: Tensor) -> Tensor:
        """Put rows, shape (B, M, E), back where they were, (B, T, E); rows without a source are zero."""
        real = self.real.to(states.device).unsqueeze(-1)
        index = self.index.to(states.device).unsqueeze(-1).expand_as(states)
        full = states.new_zeros(states.shape[0], self.full, states.shape[-1])
        return full.scatter(1, index, states.where(real, 0))

    def columns(self) -> Tensor:
        """Return the full position of each row, shape (B, M), with -1 for the rows that only fill up."""
        return self.index.where(self.real, -1)

    def within(self, outer: "KeptRows") -> Tensor:
        """Return where these rows stand among those of `outer`, which hold them all, shape (B, M)."""
        place = torch.zeros(outer.index.shape[0], outer.full, dtype=torch.int64, device=outer.index.device)
        rank = torch.arange(outer.index.shape[1], device=outer.index.device).expand_as(outer.index)
        # Filling rows repeat the position of a dropped token, which no kept row stands at.
        return place.scatter(1, outer.index, rank).gather(1, self.index)


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
    real = keep.gather(1, index)
    return KeptRows(index, real, keep.shape[1], not bool(real.all()))


def restored_attention(weights: Tensor, rows: Tensor, columns: Tensor, shape: Sequence[int]) -> Tensor:
    """Put attention weights among kept tokens back into the full square; what was dropped weighs zero.

    Parameters
    ----------
    weights : torch.Tensor
        Shape (B, Hq, Q, K); K may exceed the columns, as it does with a static cache.
    rows, columns : torch.Tensor
        Shapes (B, Q) and (B, C), int64: full position of each query and key, negative for filling.
    shape : sequence of int
        Queries and keys of the full square.

    Returns
    -------
    torch.Tensor
        Shape (B, Hq, *shape).
    """
    rows, columns = rows.to(weights.device), columns.to(weights.device)
    weights = weights[..., : columns.shape[1]]
    real = (rows >= 0)[:, None, :, None] & (columns >= 0)[:, None, None, :]
    weights = weights.where(real, 0)
    wide = weights.new_zeros(*weights.shape[:3], shape[1])
    wide = wide.scatter_add(3, columns.clamp(min=0)[:, None, None, :].expand_as(weights), weights)
    tall = weights.new_zeros(*weights.shape[:2], *shape)
    return tall.scatter_add(2, rows.clamp(min=0)[:, None, :, None].expand_as(wide), wide)

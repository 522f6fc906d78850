"""Tokens that stand for others: new states for the rows that stay, and their sizes in later attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iwp_transformers.masks import open_mask, weighed_mask
from iwp_transformers.rows import KeptRows

__all__ = ["Chosen", "TokenSizes", "replaced_states"]


@dataclass(frozen=True, eq=False)
class Chosen:
    """What one sample keeps of its candidates.

    Attributes
    ----------
    rows : torch.Tensor
        Shape (M,), int64, ascending: rows, in the forward, of the visual tokens that stay.
    states : torch.Tensor, optional
        Shape (M, E): their new states; None if they keep their own.
    sizes : torch.Tensor, optional
        Shape (M,): number of tokens that each stands for in later attention; None if attention is unchanged.
    merged_into : torch.Tensor, optional
        Shape (N,), int64: for each candidate the row of the token that it was merged into, -1 if it was dropped.
    """

    rows: Tensor
    states: Tensor | None = None
    sizes: Tensor | None = None
    merged_into: Tensor | None = None


def replaced_states(hidden: Tensor, rows: Sequence[Tensor], chosen: Sequence[Chosen]) -> Tensor:
    """Return the inputs of a layer with the new states of the tokens that stay.

    Parameters
    ----------
    hidden : torch.Tensor
        Shape (B, R, E).
    rows : sequence of torch.Tensor
        For each sample, shape (M,): the rows of the tokens that stay.
    chosen : sequence of Chosen
        For each sample.

    Raises
    ------
    NotImplementedError
        If gradients are needed: new states are computed without.
    """
    if all(each.states is None for each in chosen):
        return hidden
    if torch.is_grad_enabled() and hidden.requires_grad:
        msg = "the method gives tokens new states, through which no gradient flows: run it within `torch.no_grad()`"
        raise NotImplementedError(msg)
    hidden = hidden.clone()
    for sample, (own, each) in enumerate(zip(rows, chosen, strict=True)):
        if each.states is not None:
            hidden[sample, own] = each.states.to(hidden)
    return hidden


class TokenSizes:
    """How many tokens each stands for in attention, by its position in the input sequence.

    Attributes
    ----------
    log : torch.Tensor or None
        Shape (B, T), float32: logarithms of the sizes; None as long as all are one.
    """

    def __init__(self) -> None:
        self.log: Tensor | None = None
        self._known: dict[tuple[int, int], tuple[object, Any]] = {}

    def update(self, shape: tuple[int, int], chosen: Sequence[Chosen], device: torch.device) -> bool:
        """Take in what samples chose; return whether any size came."""
        if all(each.sizes is None for each in chosen):
            return False
        # A new tensor each time: what was handed out before stays as it was.
        self.log = torch.zeros(shape, device=device) if self.log is None else self.log.clone()
        for row, each in zip(self.log, chosen, strict=True):
            if each.sizes is not None:
                row[each.rows.to(device)] = each.sizes.to(device, torch.float32).log()
        self._known = {}
        return True

    def columns(self, rows: KeptRows | None) -> Tensor | None:
        """Return the logarithms for the rows that are there, shape (B, R)."""
        if self.log is None or rows is None:
            return self.log
        rows = rows.to(self.log.device)
        return rows.gather(self.log, 1).masked_fill(~rows.real, 0)

    def weighed(self, mask: Any, hidden: Tensor, rows: KeptRows | None, keys: int) -> Any:
        """Return the mask of a prompt's layer, which has `keys` columns, with the logarithms added to them."""
        columns = self.columns(rows)
        if columns is None:
            return mask
        # Layers that share a mask share the answer; the mask is kept, so that no other object can come to have its id.
        key = (id(mask), keys)
        if key not in self._known:
            # A static cache has more columns than the prompt has rows.
            full = F.pad(open_mask(hidden, hidden.shape[1]), (0, keys - hidden.shape[1])) if mask is None else mask
            self._known[key] = (mask, weighed_mask(full, columns, hidden.dtype))
        return self._known[key][1]

"""FastV balanced with redundancy: attention from the last token, weighed against similarity to that token."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import fastv_balanced
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["FastVBalanced"]


@dataclass(frozen=True, kw_only=True)
class FastVBalanced(Method):
    """`iwp_core.methods.fastv_balanced` on attention in the layer before and on states that enter the pruning layer.

    Attributes
    ----------
    balance : float
        Weight alpha of the attention, 0 to 1. 1 is FastV.
    """

    name: ClassVar[str] = "fastv-balanced"
    paper: ClassVar[Paper | None] = Paper(title="Are We Solving the Right Problem?", year=2025, arxiv="2502.11501")
    reads: ClassVar[tuple[Reads, ...]] = ("attention of the layer before", "states")
    layer: ClassVar[int] = 2
    balance: float = 0.5

    def __post_init__(self) -> None:
        """Check the option.

        Raises
        ------
        TypeError
            If `balance` is not a real number.
        ValueError
            If it is not from 0 to 1.
        """
        token = torch.ones(1, 1)
        fastv_balanced(token, token, token[0], 1, balance=self.balance)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        last = view.last.hidden[0]
        kept: Tensor = fastv_balanced(
            view.attention_rows()[:, 0], view.visual.hidden, last, view.budget, balance=self.balance
        )
        return kept

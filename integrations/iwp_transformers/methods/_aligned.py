"""What TrimTokenator and DivPrune* share: a first stage that keeps the visual tokens best aligned with the text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["Aligned"]


@dataclass(frozen=True, kw_only=True)
class Aligned(Method):
    """A rule on input embeddings. Text means the text after the first visual token.

    Attributes
    ----------
    rule : callable
        The core's function. It takes visual tokens, text tokens and a budget, and returns the indices to keep.
    alignment : {"l2", "mutual_information", "cosine"}
        Measure of alignment in the first stage, as in `iwp_core.methods.trimtokenator`.
    share : float
        Share of the visual tokens that pass the first stage, 0 to 1.
    """

    paper: ClassVar[Paper | None] = Paper(title="TrimTokenator", year=2025, arxiv="2509.00320")
    reads: ClassVar[tuple[Reads, ...]] = ("input embeddings",)
    layer: ClassVar[int] = 0
    rule: ClassVar[Callable[..., Any]]
    alignment: Literal["l2", "mutual_information", "cosine"] = "l2"
    share: float = 0.8

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TypeError
            If `share` is not a real number.
        ValueError
            If `alignment` is unknown, or `share` is not from 0 to 1.
        """
        token = torch.ones(1, 1)
        self._kept(token, token, 1)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual, text = (view.embedded(tokens).hidden for tokens in (view.visual, view.question))
        return self._kept(visual, text, view.budget)

    def _kept(self, visual: Tensor, text: Tensor, budget: int) -> Tensor:
        kept: Tensor = type(self).rule(visual, text, budget, alignment=self.alignment, share=self.share)
        return kept

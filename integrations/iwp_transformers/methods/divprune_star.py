"""DivPrune*: DivPrune on the visual tokens that align with the text."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from iwp_core.methods import divprune_star
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["DivPruneStar"]


@dataclass(frozen=True, kw_only=True)
class DivPruneStar(Method):
    """`iwp_core.methods.divprune_star` on input embeddings; text is what follows the first visual token.

    Attributes
    ----------
    alignment, share : str, float
        Of its first stage.
    """

    name: ClassVar[str] = "divprune-star"
    paper: ClassVar[Paper | None] = Paper(title="TrimTokenator", year=2025, arxiv="2509.00320")
    reads: ClassVar[tuple[Reads, ...]] = ("input embeddings",)
    layer: ClassVar[int] = 0
    alignment: Literal["l2", "mutual_information", "cosine"] = "l2"
    share: float = 0.8

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TypeError, ValueError
            If `alignment` is unknown, or `share` no number from 0 to 1.
        """
        token = torch.ones(1, 1)
        divprune_star(token, token, 1, alignment=self.alignment, share=self.share)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual, text = (view.embedded(tokens).hidden for tokens in (view.visual, view.question))
        kept: Tensor = divprune_star(visual, text, view.budget, alignment=self.alignment, share=self.share)
        return kept

"""TrimTokenator: tokens that align with the text, and of those a set of large summed distance."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from iwp_core.methods import trimtokenator
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["TrimTokenator"]


@dataclass(frozen=True, kw_only=True)
class TrimTokenator(Method):
    """`iwp_core.methods.trimtokenator` on input embeddings; text is what follows the first visual token.

    Attributes
    ----------
    alignment, share : str, float
        Of its first stage.
    """

    name: ClassVar[str] = "trimtokenator"
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
        trimtokenator(token, token, 1, alignment=self.alignment, share=self.share)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual, text = (view.embedded(tokens).hidden for tokens in (view.visual, view.question))
        kept: Tensor = trimtokenator(visual, text, view.budget, alignment=self.alignment, share=self.share)
        return kept

"""SCOPE: keep visual tokens that cover the others well and that the class token attends to."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import scope
from iwp_transformers.methods._method import Paper
from iwp_transformers.methods._sources import TowerMethod, by_source
from iwp_transformers.view import LayerView

__all__ = ["SCOPE"]


@dataclass(frozen=True, kw_only=True)
class SCOPE(TowerMethod):
    """`iwp_core.methods.scope` on features and attention of the vision tower, before the projector.

    For a tower without class token, the attention is averaged over all patches as queries. Each image, tile or frame
    keeps the same share of its tokens, as the official code does for crops.

    Attributes
    ----------
    exponent : float
        Exponent alpha of the saliency, 0 to 10.
    combination : {"multiply", "add"}
        Whether the saliency multiplies the gain in coverage or is added to it.
    """

    name: ClassVar[str] = "scope"
    paper: ClassVar[Paper | None] = Paper(title="SCOPE", year=2025, arxiv="2510.24214")

    exponent: float = 1.0
    combination: str = "multiply"

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        TypeError
            If `exponent` is not a real number.
        ValueError
            If `exponent` is out of range, or `combination` is unknown.
        """
        token = torch.ones(1, 1)
        scope(token, token, 1, exponent=self.exponent, combination=self.combination)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        features, attention = view.tower.features, view.tower.attention()

        def choose(tokens: Tensor, count: int) -> Tensor:
            kept: Tensor = scope(
                features[tokens], attention[:, tokens], count, exponent=self.exponent, combination=self.combination
            )
            return kept

        return by_source(view, choose)

"""SCOPE: cover the visual tokens well, with tokens that the class token attends to."""

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

    A tower without class token has the mean over all patches in its place. Each image, tile or frame keeps the same
    share of its tokens, as the official code does for crops.

    Attributes
    ----------
    exponent : float
        alpha, 0 to 10: the saliency is raised to this power.
    combination : str
        ``"multiply"`` or ``"add"``: how coverage and saliency are put together.
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
            If the exponent is no number.
        ValueError
            If an option is out of range.
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

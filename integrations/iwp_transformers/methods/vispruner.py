"""VisPruner: keep the most attended tokens, and of the others those that are least similar to each other."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import vispruner
from iwp_transformers.methods._method import Paper
from iwp_transformers.methods._sources import TowerMethod, by_source
from iwp_transformers.view import LayerView

__all__ = ["VisPruner"]


@dataclass(frozen=True, kw_only=True)
class VisPruner(TowerMethod):
    """`iwp_core.methods.vispruner` on features and attention of the vision tower, before the projector.

    For a tower without class token, the attention is averaged over all patches as queries. Each image, tile or frame
    keeps the same share of its tokens.

    Attributes
    ----------
    important : float
        Share of the kept tokens that is chosen by attention, 0 to 1.
    """

    name: ClassVar[str] = "vispruner"
    paper: ClassVar[Paper | None] = Paper(title="VisPruner", year=2025, arxiv="2412.01818")

    important: float = 0.5

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        TypeError
            If `important` is not a real number.
        ValueError
            If it is not from 0 to 1.
        """
        token = torch.ones(1, 1)
        vispruner(token, token, 1, important=self.important)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        features, attention = view.tower.features, view.tower.attention()

        def choose(tokens: Tensor, count: int) -> Tensor:
            kept: Tensor = vispruner(features[tokens], attention[:, tokens], count, important=self.important)
            return kept

        return by_source(view, choose)

"""HoloV: divide the budget among runs of tokens, and keep the most attended tokens of each run."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import holov
from iwp_transformers.methods._method import Paper
from iwp_transformers.methods._sources import TowerMethod, by_source
from iwp_transformers.view import LayerView

__all__ = ["HoloV"]


@dataclass(frozen=True, kw_only=True)
class HoloV(TowerMethod):
    """`iwp_core.methods.holov` on features and mean attention of the vision tower, before the projector.

    For a tower without class token, the attention is averaged over all patches as queries. Each image, tile or frame is
    cut into runs by itself, and keeps the same share of its tokens.

    Attributes
    ----------
    patches : int
        Number of runs into which the tokens of an image are cut, at least 1. An image with fewer tokens has one run for
        each token.
    """

    name: ClassVar[str] = "holov"
    paper: ClassVar[Paper | None] = Paper(title="HoloV", year=2025, arxiv="2510.02912")

    patches: int = 16

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        TypeError
            If `patches` is not an int.
        ValueError
            If it is below 1.
        """
        count = self.patches if isinstance(self.patches, int) and self.patches > 0 else 1
        holov(torch.ones(count, 1), torch.ones(count), 1, patches=self.patches)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        features, attention = view.tower.features, view.tower.attention().mean(0)

        def choose(tokens: Tensor, count: int) -> Tensor:
            patches = min(self.patches, len(tokens))
            kept: Tensor = holov(features[tokens], attention[tokens], count, patches=patches)
            return kept

        return by_source(view, choose)

"""FasterVLM: keep the visual tokens that the class token of the vision tower attends to most."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import fastervlm
from iwp_transformers.methods._method import Paper
from iwp_transformers.methods._sources import TowerMethod, by_source
from iwp_transformers.view import LayerView

__all__ = ["FasterVLM"]


@dataclass(frozen=True, kw_only=True)
class FasterVLM(TowerMethod):
    """`iwp_core.methods.fastervlm` on the attention of the tower layer whose output is the features.

    For a tower without class token, the attention is averaged over all patches as queries. Each image, tile or frame
    keeps the same share of its tokens.
    """

    name: ClassVar[str] = "fastervlm"
    paper: ClassVar[Paper | None] = Paper(title="FasterVLM", year=2024, arxiv="2412.01818")

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        attention = view.tower.attention()
        return by_source(view, lambda tokens, count: fastervlm(attention[:, tokens], count))

"""CDPruner: tokens that are relevant to the question and different from each other."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import cdpruner, cdpruner_relevance
from iwp_transformers.methods._method import Paper, Reads
from iwp_transformers.methods._sources import TowerMethod, by_source
from iwp_transformers.view import LayerView

__all__ = ["CDPruner"]


@dataclass(frozen=True, kw_only=True)
class CDPruner(TowerMethod):
    """`iwp_core.methods.cdpruner` on the visual tokens that enter the language model.

    The relevance of a token is its mean cosine to the embeddings of the question (the text after the first visual
    token) in the language model, scaled over all images together. The official code takes it from CLIP's text tower,
    which the supported models do not have. Each image, tile or frame keeps the same share of its tokens, as the
    official code does for crops.

    Attributes
    ----------
    sign : {1, -1}
        1 for the cosine, as in the paper. -1 for its negative, which the authors found to be right for LLaVA's CLIP
        only.
    """

    name: ClassVar[str] = "cdpruner"
    paper: ClassVar[Paper | None] = Paper(title="CDPruner", year=2025, arxiv="2506.10967")
    reads: ClassVar[tuple[Reads, ...]] = ("vision tower", "input embeddings")

    sign: int = 1

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        ValueError
            If `sign` is neither 1 nor -1.
        """
        token = torch.ones(1, 1)
        cdpruner_relevance(token[None], token, sign=self.sign)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        features = view.tower.projected
        question = view.embedded(view.question).hidden
        relevance = cdpruner_relevance(features[None], question.to(features), sign=self.sign)[0]
        return by_source(view, lambda tokens, count: cdpruner(features[tokens], relevance[tokens], count))

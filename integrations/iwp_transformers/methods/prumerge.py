"""PruMerge: keep tokens whose attention from the class token is an outlier, and add their neighbours to them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import prumerge
from iwp_transformers.methods._method import Merged, Paper, Reads
from iwp_transformers.methods._sources import TowerMethod, merged_by_source, unprojected
from iwp_transformers.view import LayerView

__all__ = ["PruMerge"]


@dataclass(frozen=True, kw_only=True)
class PruMerge(TowerMethod):
    """`iwp_core.methods.prumerge` on features of the vision tower, with attention and keys of its last layer.

    Tokens are merged before the projector. If the model projects several patches as one (Qwen2-VL, Qwen2.5-VL), or at a
    later layer, the states that enter the layer are merged. A kept token keeps its position. The extra token, which
    sums up the dropped ones, has the position of the most attended of them. For a tower without class token, the
    attention is averaged over all patches as queries. Each image, tile or frame keeps at most the same share of its
    tokens. If that is a single token, there is no extra token; if it is all of them, nothing is merged.

    Attributes
    ----------
    spread : bool
        PruMerge+: evenly spaced tokens are kept too.
    neighbours : int
        Number of tokens that are added to each kept token, at least 0.
    """

    name: ClassVar[str] = "prumerge"
    paper: ClassVar[Paper | None] = Paper(title="PruMerge", year=2024, arxiv="2403.15388")
    reads: ClassVar[tuple[Reads, ...]] = ("vision tower", "states")
    own_count: ClassVar[bool] = True

    spread: bool = False
    neighbours: int = 32

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        TypeError
            If `neighbours` is not an int.
        ValueError
            If it is below 0.
        """
        token = torch.ones(1, 1)
        prumerge(token, token, token[0], share=1.0, neighbours=self.neighbours)

    def __call__(self, view: LayerView) -> Merged:
        """Return what stays, with its states."""
        attention = view.tower.attention("last", split_heads=False)[0]
        keys = view.tower.keys("last").transpose(0, 1).flatten(1)
        states, project = unprojected(view)

        def merge(tokens: Tensor, count: int) -> Merged:
            single = count == 1
            merged = prumerge(
                states[tokens],
                keys[tokens],
                attention[tokens],
                share=1.5 / len(tokens) if single else None,
                budget=None if single else count,
                spread=self.spread and not single,
                neighbours=self.neighbours,
            )
            assignment = merged.assignment.masked_fill(merged.assignment >= count, -1)
            return Merged(indices=merged.kept[:count], states=project(merged.tokens[:count]), assignment=assignment)

        return merged_by_source(view, merge)

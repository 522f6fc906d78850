"""ToMe: merge the most similar pairs of visual tokens, and weigh them by how many they stand for."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import tome
from iwp_transformers.methods._method import Merged, Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["ToMe"]


@dataclass(frozen=True, kw_only=True)
class ToMe(Method):
    """`iwp_core.methods.tome` on the visual tokens of the decoder, compared by the mean of their rotated keys.

    One matching merges at most half of the tokens; where the budget is less, matchings follow each other at the same
    layer, with the keys merged as the states are. The official code merges some in every block of a vision transformer:
    give `layer` and `budget` as tuples for that. A merged token has the position of the one that others went into, and
    the logarithm of its size is added to the logits of later attention.
    """

    name: ClassVar[str] = "tome"
    paper: ClassVar[Paper | None] = Paper(title="ToMe", year=2022, arxiv="2210.09461")
    reads: ClassVar[tuple[Reads, ...]] = ("states", "queries and keys")
    flash: ClassVar[bool] = False

    def __call__(self, view: LayerView) -> Merged:
        """Return what stays, with its states and sizes."""
        states, keys = view.visual.hidden, view.visual.rotated_keys.mean(0)
        width, sizes = states.shape[1], view.sizes.to(states)
        kept = torch.arange(len(states), device=states.device)
        assignment: Tensor = kept
        while len(kept) > view.budget:
            count = max(view.budget, -(-len(kept) // 2))
            merged = tome(keys, torch.cat((states, keys.to(states)), dim=1), budget=count, sizes=sizes)
            states, keys = merged.tokens[:, :width], merged.tokens[:, width:]
            kept, sizes, assignment = kept[merged.kept], merged.sizes, merged.assignment[assignment]
        return Merged(indices=kept, states=states, sizes=sizes, assignment=assignment)

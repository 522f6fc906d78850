"""ToMe: merge the most similar pairs of visual tokens, and weigh each by the number of tokens that it stands for."""

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
    """`iwp_core.methods.tome` in a decoder layer, comparing tokens by their mean key with rotary embedding.

    One matching merges at most half of the tokens. For a smaller budget, several matchings follow each other at the
    same layer; keys are merged like the states. A merged token has the position of the token that the others went into.
    The logarithm of its size is added to its attention logits from this layer on.

    Deviation: the official code merges some tokens in every block of a vision transformer. For the same in the decoder,
    give `layer` and `budget` as tuples.
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

"""PACT: drop unimportant visual tokens, cluster the others by density, and weigh each cluster by its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from iwp_core.methods import pact, pact_importance
from iwp_transformers.methods._method import Budget, Layers, Merged, Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["PACT"]


@dataclass(frozen=True, kw_only=True)
class PACT(Method):
    """`iwp_core.methods.pact` on the states that enter the pruning layer, with that layer's queries and keys.

    A cluster becomes one token: the mean of its states, at the position of its centre. The logarithm of its size is
    added to its attention logits from this layer on. The number of clusters follows from `cutoff`. A budget raises the
    cutoff until at most that many tokens remain; a budget of 1.0 leaves it unchanged.

    Attributes
    ----------
    cutoff : float
        Cosine distance of keys, 0 to 2. No two centres are at this distance or nearer.
    share : float
        Share of the tokens that is clustered, 0 to 1, the most important first.
    """

    name: ClassVar[str] = "pact"
    paper: ClassVar[Paper | None] = Paper(title="PACT", year=2025, arxiv="2504.08966")
    reads: ClassVar[tuple[Reads, ...]] = ("states", "queries and keys")
    flash: ClassVar[bool] = False
    layer: ClassVar[int] = 4
    own_count: ClassVar[bool] = True

    cutoff: float = 0.21
    share: float = 0.55

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        TypeError
            If an option is not a real number.
        ValueError
            If an option is out of range.
        """
        token = torch.ones(1, 1)
        pact(token, token, token[0], cutoff=self.cutoff, share=self.share)

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
        """Return the one stage.

        Raises
        ------
        TypeError
            If `budget` is missing.
        ValueError
            If several stages are given: clusters of clusters are not defined.
        """
        if isinstance(layer, Sequence) or isinstance(budget, Sequence):
            msg = f"`layer` is {layer!r} and `budget` is {budget!r}, expected one of each: pact has one stage"
            raise ValueError(msg)
        return super().stages(layer, budget, layers)

    def __call__(self, view: LayerView) -> Merged:
        """Return the centres, with the states and sizes of their clusters."""
        visual = view.visual
        text = view.text.positions
        before = view.at(torch.cat((visual.positions, text[text < visual.positions[-1]])).sort().values)
        places = torch.searchsorted(before.positions, visual.positions)
        importance = pact_importance(before.hidden, before.queries, before.keys, places)
        merged = pact(
            visual.hidden,
            visual.rotated_keys.transpose(0, 1).flatten(1),
            importance,
            cutoff=self.cutoff,
            share=self.share,
            budget=view.budget,
        )
        return Merged(indices=merged.kept, states=merged.tokens, sizes=merged.sizes, assignment=merged.assignment)

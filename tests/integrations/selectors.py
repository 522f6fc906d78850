"""Other rules as selectors: FastV, DivPrune and chance, as somebody comparing methods would write them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from iwp_transformers import LayerView


def fastv(view: LayerView) -> Tensor:
    """Keep the tokens that the last token of the previous layer attends to most."""
    attention = view.last_attention()[view.visual.positions]
    return attention.topk(view.budget).indices


def divprune(view: LayerView) -> Tensor:
    """Keep tokens whose hidden states are far apart: each next one maximises its distance to those chosen."""
    directions = torch.nn.functional.normalize(view.visual.hidden.float(), dim=-1)
    distance = 1 - directions @ directions.T
    chosen = [int(distance.fill_diagonal_(torch.inf).amin(1).argmax())]
    while len(chosen) < view.budget:
        nearest = distance[:, chosen].amin(1)
        nearest[chosen] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


@dataclass(frozen=True)
class Chance:
    """Keep tokens at random."""

    seed: int = 0

    def __call__(self, view: LayerView) -> Tensor:
        """Return as many indices as the budget allows."""
        generator = torch.Generator().manual_seed(self.seed + int(view.visual.positions.sum()))
        return torch.randperm(len(view.visual), generator=generator)[: view.budget]

"""What each method has to keep, worked out from a reading with the rules on plain arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor, nn

from iwp_core import methods
from tests.integrations.methods.readings import Reading


@dataclass(frozen=True)
class Question:
    """One sample at one stage.

    Attributes
    ----------
    visual, text, real : Tensor
        Positions of the candidates, of the text behind the first of them, and of all tokens but padding.
    picture : Tensor
        Positions of all visual tokens, whether earlier stages left them or not.
    grids : list of Tensor
        Where the candidates stand, indices of shape (h, w).
    """

    reading: Reading
    model: nn.Module
    sample: int
    layer: int
    count: int
    ids: Tensor
    visual: Tensor
    text: Tensor
    real: Tensor
    picture: Tensor
    grids: list[Tensor]

    def attention(self, queries: Tensor, layer: int | None = None) -> Tensor:
        """Return the weights of some queries on the candidates, by default in the layer before."""
        weights = self.reading.attentions[self.layer - 1 if layer is None else layer][self.sample]
        return weights[:, queries][..., self.visual]

    def hidden(self, positions: Tensor, layer: int | None = None) -> Tensor:
        """Return what enters a layer, by default the one that drops."""
        return self.reading.hidden[self.layer if layer is None else layer][self.sample, positions]

    def keys(self, positions: Tensor) -> Tensor:
        """Return the keys of the layer before, all heads of a token in a row."""
        return self.reading.keys[self.layer - 1][self.sample][:, positions].permute(1, 0, 2).flatten(1)

    @property
    def last(self) -> Tensor:
        """Attention of the last token on the candidates in the layer before, shape (Hq, N)."""
        return self.attention(self.real[-1:])[:, 0]


def _random(asked: Question) -> Tensor:
    prompt = repr((0, asked.ids[asked.real].tolist())).encode()
    seed = int.from_bytes(sha256(prompt).digest()[:8], "big")
    return methods.random_tokens(asked.hidden(asked.visual), asked.count, seed=seed)


def _divided(asked: Question) -> list[int]:
    """Divide the budget among the grids by largest remainder."""
    total = len(asked.visual)
    exact = [asked.count * grid.numel() / total for grid in asked.grids]
    shares = [int(part) for part in exact]
    order = sorted(range(len(exact)), key=lambda place: shares[place] - exact[place])
    for place in order[: asked.count - sum(shares)]:
        shares[place] += 1
    return shares


def _by_grid(asked: Question, rule: Callable[[Tensor, int, tuple[int, int]], Tensor]) -> Tensor:
    kept = [
        grid.flatten()[rule(grid.flatten(), count, tuple(grid.shape))]
        for grid, count in zip(asked.grids, _divided(asked), strict=True)
        if count
    ]
    return torch.cat(kept).sort().values


def _window(asked: Question) -> Tensor:
    return _by_grid(asked, lambda own, count, grid: methods.fastv_window(asked.last[:, own], count, grid=grid))


def _pooling(asked: Question) -> Tensor:
    states = asked.hidden(asked.visual)
    return _by_grid(asked, lambda own, count, grid: methods.pooling(states[own], grid=grid, budget=count).kept)


def _sparsevlm(asked: Question) -> Tensor:
    text = asked.real[(asked.real > asked.picture[0]) & ~torch.isin(asked.real, asked.picture)]
    raters = methods.sparsevlm_raters(asked.hidden(asked.picture, 0), asked.hidden(text, 0))
    return methods.sparsevlm(asked.attention(text), raters, asked.count)


def _pyramiddrop(asked: Question) -> Tensor:
    row = asked.attention(asked.real[-1:], asked.layer)[:, 0].mean(0)
    return row.argsort(descending=True, stable=True)[: asked.count].sort().values


def _dart(asked: Question) -> Tensor:
    norm = asked.model.model.language_model.norm
    with torch.no_grad():
        visual, text = (norm(asked.hidden(positions)) for positions in (asked.visual, asked.text))
    return methods.dart(
        visual,
        asked.keys(asked.visual),
        text,
        asked.keys(asked.text),
        budget=asked.count,
        image_pivots=min(4, asked.count),
        offset=int((asked.real < asked.visual[0]).sum()),
    )


def _aligned(rule: Callable[..., Tensor]) -> Callable[[Question], Tensor]:
    return lambda asked: rule(asked.hidden(asked.visual, 0), asked.hidden(asked.text, 0), asked.count)


EXPECTED: dict[str, Callable[[Question], Tensor]] = {
    "random": _random,
    "uniform": lambda asked: methods.uniform(asked.hidden(asked.visual), asked.count),
    "pooling": _pooling,
    "fastv": lambda asked: asked.last.mean(0).argsort(descending=True)[: asked.count].sort().values,
    "fastv-reverse": lambda asked: asked.last.mean(0).argsort()[: asked.count].sort().values,
    "fastv-window": _window,
    "fastv-visual": lambda asked: methods.fastv(asked.attention(asked.visual[-1:])[:, 0], asked.count),
    "fastv-balanced": lambda asked: methods.fastv_balanced(
        asked.last, asked.hidden(asked.visual), asked.hidden(asked.real[-1:])[0], asked.count
    ),
    "divprune": lambda asked: methods.divprune(asked.hidden(asked.visual), asked.count),
    "divprune-star": _aligned(methods.divprune_star),
    "trimtokenator": _aligned(methods.trimtokenator),
    "sparsevlm": _sparsevlm,
    "pyramiddrop": _pyramiddrop,
    "mustdrop": lambda asked: (
        asked.attention(asked.text).mean(0).sum(0).argsort(descending=True)[: asked.count].sort().values
    ),
    "v2drop": lambda asked: (
        (asked.hidden(asked.visual) - asked.hidden(asked.visual, asked.layer - 1))
        .norm(dim=-1)
        .argsort(descending=True)[: asked.count]
        .sort()
        .values
    ),
    "dart": _dart,
}
"""By the name of the method: the indices of the candidates that it keeps, ascending. IWP has tests of its own."""

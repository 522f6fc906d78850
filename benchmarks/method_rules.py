"""Every method's rule on arrays of any number of tokens, and what its official code costs by its own steps.

N visual tokens, M kept, T text tokens, L of the whole prompt, E hidden width, D width of a head or of keys, H heads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from iwp_core import methods, select_tokens
from iwp_transformers.methods import METHODS

__all__ = ["ABSENT", "COMPLEXITY", "Inputs", "rules"]

GRIDS = {576: (24, 24), 1024: (32, 32), 2880: (48, 60), 7290: (81, 90), 20000: (125, 160)}

COMPLEXITY: Mapping[str, str] = MappingProxyType({
    "iwp": "N D + M N D (the paper's; no official code)",
    "random": "N",
    "uniform": "M",
    "pooling": "N E",
    "fastv": "N log N, behind a map of H L²",
    "fastv-reverse": "N log N, behind a map of H L² (no official code)",
    "fastv-window": "N log N, behind a map of H L² (no official code)",
    "fastv-visual": "N log N, behind a map of H L² (no official code)",
    "fastv-balanced": "N E, behind a map of H L² (no official code)",
    "divprune": "N² E + M² N / 2",
    "cdpruner": "N² E + M² N / 2",
    "scope": "N² E + M N²",
    "visionzip": "(N - M) C D, C contextual tokens",
    "vispruner": "(N - M) / 8 passes of N² E / 4",
    "fastervlm": "N log N",
    "tome": "N² D / 4 for each matching",
    "pact": "N² D",
    "prumerge": "M N D, in a Python loop",
    "holov": "N² E / 16",
    "divprune-star": "N T E + N² E + M N (no official code)",
    "trimtokenator": "N T E + N² E + M N (no official code)",
    "sparsevlm": "H T N, behind a map of H L²",
    "pyramiddrop": "H L D for each stage",
    "mustdrop": "H T N, behind a map of H L²",
    "v2drop": "N E",
    "dart": "8 N E",
})
"""Operations of choosing, as the steps of the official code or, where there is none, of the paper ask for."""

ABSENT: Mapping[str, str] = MappingProxyType({"vtw": "keeps no token, so there is nothing to choose"})
"""Methods without a rule on arrays, with the reason."""

HEADS, KV_HEADS, HEAD_WIDTH, TEXT = 16, 4, 64, 32


@dataclass(frozen=True)
class Inputs:
    """Random tokens of one size.

    Parameters
    ----------
    tokens, width : int
        N and E.
    count : int
        M, as many as are kept.
    seed : int
    """

    tokens: int
    width: int
    count: int
    seed: int = 0

    def normal(self, *shape: int) -> Tensor:
        """Draw from a normal distribution, of another seed for each shape."""
        generator = torch.Generator().manual_seed(self.seed + hash(shape) % 2**31)
        return torch.randn(*shape, generator=generator)

    @cached_property
    def states(self) -> Tensor:
        """Hidden states or features, shape (N, E)."""
        return self.normal(self.tokens, self.width)

    @cached_property
    def text(self) -> Tensor:
        """Hidden states of the text, shape (T, E)."""
        return self.normal(TEXT, self.width)

    @cached_property
    def keys(self) -> Tensor:
        """Keys of all heads behind each other, shape (N, H D)."""
        return self.normal(self.tokens, KV_HEADS * HEAD_WIDTH)

    @cached_property
    def rows(self) -> Tensor:
        """Attention of the text to the tokens, shape (H, T, N)."""
        return self.normal(HEADS, TEXT, self.tokens).softmax(-1)

    @property
    def attention(self) -> Tensor:
        """Attention of one query, shape (H, N)."""
        return self.rows[:, -1]


def rules(inputs: Inputs) -> dict[str, Callable[[], Any]]:
    """Return what computes each method's choice, by its name, in the order of the library's list."""
    count, tokens = inputs.count, inputs.tokens
    states, text, keys, rows, attention = inputs.states, inputs.text, inputs.keys, inputs.rows, inputs.attention
    one, grid = attention.mean(0), GRIDS[tokens]
    heads = keys.unflatten(-1, (KV_HEADS, HEAD_WIDTH)).transpose(0, 1)
    queries, changed = inputs.normal(HEADS, TEXT, HEAD_WIDTH), states + inputs.normal(tokens, inputs.width)
    every_head, contextual = heads.repeat_interleave(HEADS // KV_HEADS, dim=0), count // 6
    found: dict[str, Callable[[], Any]] = {
        "iwp": partial(select_tokens, heads, heads, queries, count),
        "random": partial(methods.random_tokens, states, count, seed=0),
        "uniform": partial(methods.uniform, states, count),
        "pooling": partial(methods.pooling, states, grid=grid, budget=count),
        "fastv": partial(methods.fastv, attention, count),
        "fastv-reverse": partial(methods.fastv_reverse, attention, count),
        "fastv-window": partial(methods.fastv_window, attention, count, grid=grid),
        "fastv-visual": partial(methods.fastv_visual, attention, count),
        "fastv-balanced": partial(methods.fastv_balanced, attention, states, text[-1], count),
        "divprune": partial(methods.divprune, states, count),
        "cdpruner": partial(methods.cdpruner, states, one * tokens, count),
        "scope": partial(methods.scope, states, attention, count),
        "visionzip": partial(
            methods.visionzip,
            *(states, keys, attention),
            dominant=count - contextual,
            contextual=contextual,
            class_token=False,
        ),
        "vispruner": partial(methods.vispruner, states, attention, count),
        "fastervlm": partial(methods.fastervlm, attention, count),
        "tome": partial(methods.tome, keys, states, merge=tokens // 2),
        "pact": partial(methods.pact, states, keys, one),
        "prumerge": partial(methods.prumerge, states, keys, one, budget=count),
        "holov": partial(methods.holov, states, one, count),
        "divprune-star": partial(methods.divprune_star, states, text, count),
        "trimtokenator": partial(methods.trimtokenator, states, text, count),
        "sparsevlm": lambda: methods.sparsevlm(rows, methods.sparsevlm_raters(states, text), count),
        "pyramiddrop": partial(methods.pyramiddrop, queries[:, -1], every_head, torch.arange(tokens), count),
        "mustdrop": partial(methods.mustdrop, rows, None, budget=count),
        "v2drop": partial(methods.v2drop, states, changed, count),
        "dart": partial(methods.dart, states, keys, text, inputs.normal(TEXT, keys.shape[1]), budget=count),
    }
    return {name: found[name] for name in METHODS if name not in ABSENT}

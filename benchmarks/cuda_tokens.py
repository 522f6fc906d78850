"""Random tokens with the shapes of one layer of LLaVA-OneVision-7B, plain and hard, drawn where they are needed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

HEADS, QUERY_HEADS, WIDTH = 4, 28, 128
TOKENS_PER_CLUSTER = 24
KEY_BIAS = 300.0
"""Length of the constant part of a head's keys, as the biases of trained key projections give it."""


@dataclass(frozen=True)
class Tokens:
    """Keys (H, N, D), values (H, N, D) and queries (Hq, D)."""

    keys: Tensor
    values: Tensor
    queries: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and queries, in the order of `select_tokens`."""
        return self.keys, self.values, self.queries

    def to(self, *kind: torch.dtype | torch.device) -> "Tokens":
        """Return the tokens in another dtype or on another device."""
        return Tokens(*(part.to(*kind) for part in self.parts))

    @property
    def bytes(self) -> int:
        """Bytes of all three arrays."""
        return sum(part.numel() * part.element_size() for part in self.parts)


def draw(
    total: int, generator: torch.Generator, *, per_cluster: int = TOKENS_PER_CLUSTER, key_bias: float = 0.0
) -> Tokens:
    """Draw float32 tokens that resemble each other in clusters, as neighbouring patches do; 1 makes all independent."""
    device = generator.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    member = torch.randint(-(-total // per_cluster), (total,), generator=generator, device=device)

    def rows() -> Tensor:
        if per_cluster == 1:
            return normal(HEADS, total, WIDTH)
        centres = normal(HEADS, -(-total // per_cluster), WIDTH)
        return centres.index_select(1, member) + 0.5 * normal(HEADS, total, WIDTH)

    bias = torch.nn.functional.normalize(normal(HEADS, 1, WIDTH), dim=-1)
    return Tokens(rows() + key_bias * bias, rows(), normal(QUERY_HEADS, WIDTH))


def _independent(total: int, generator: torch.Generator) -> Tokens:
    return draw(total, generator, per_cluster=1)


def _biased(total: int, generator: torch.Generator) -> Tokens:
    return draw(total, generator, key_bias=KEY_BIAS)


def _large_logits(total: int, generator: torch.Generator) -> Tokens:
    """Let the queries point along the bias, which lifts query-key products to the hundreds."""
    tokens = _biased(total, generator)
    along = torch.nn.functional.normalize(tokens.keys.mean(dim=1), dim=-1)
    return replace(tokens, queries=tokens.queries + 20 * along.repeat_interleave(QUERY_HEADS // HEADS, dim=0))


def _ties(total: int, generator: torch.Generator) -> Tokens:
    """Make every token an exact copy of one of a few."""
    tokens = draw(total, generator, per_cluster=1, key_bias=KEY_BIAS)
    kind = torch.randint(-(-total // 8), (total,), generator=generator, device=generator.device)
    return replace(tokens, keys=tokens.keys[:, kind], values=tokens.values[:, kind])


def _blank(total: int, generator: torch.Generator) -> Tokens:
    """Make every second token the same, as a blank region of a picture does."""
    tokens = _biased(total, generator)
    tokens.keys[:, ::2] = tokens.keys[:, :1]
    tokens.values[:, ::2] = tokens.values[:, :1]
    return tokens


def _zeros(total: int, generator: torch.Generator) -> Tokens:
    """Take the value from every third token, and the key from every fifth."""
    tokens = draw(total, generator)
    tokens.values[:, ::3] = 0
    tokens.keys[:, ::5] = 0
    return tokens


KINDS: dict[str, Callable[[int, torch.Generator], Tokens]] = {
    "independent": _independent,
    "clusters": draw,
    "key bias 300": _biased,
    "logits in the hundreds": _large_logits,
    "ties": _ties,
    "blank half": _blank,
    "zero vectors": _zeros,
}


@dataclass(frozen=True, eq=False)
class Candidates:
    """What all rules choose from: tokens of a layer, and what the rivals read instead.

    The rivals' inputs are drawn when first asked for, since the largest sizes have no room for them.
    """

    tokens: Tokens
    count: int
    width: int
    text_tokens: int
    generator: torch.Generator

    @property
    def total(self) -> int:
        """Number of tokens N."""
        return self.tokens.keys.shape[1]

    def _normal(self, *shape: int) -> Tensor:
        dtype = self.tokens.keys.dtype
        return torch.randn(shape, generator=self.generator, device=self.generator.device, dtype=dtype)

    @cached_property
    def features(self) -> Tensor:
        """Visual tokens at the language model's input (N, E)."""
        return self._normal(self.total, self.width)

    @cached_property
    def text(self) -> Tensor:
        """Text tokens at the language model's input (T, E)."""
        return self._normal(self.text_tokens, self.width)

    @cached_property
    def relevance(self) -> Tensor:
        """One number a token (N,), in float32: relevance to the text, or attention of a class token."""
        return self._normal(self.total).float().exp()

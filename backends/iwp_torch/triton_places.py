"""Where the real tokens of each sample of a batch are, and sums over them that do not depend on what is beside them.

Kernels count the real tokens of a sample, 0, 1, ..., and find their rows in memory by `rows_of`. Behind the last one
its row is read again, up to the length of the longest sample: such places are computed like others, and never chosen.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN202, ANN201 - Triton reads annotations of kernels: only constants have one

from dataclasses import dataclass
from typing import Any

import torch
import triton  # type: ignore[import-untyped] # the package has no types
import triton.language as tl  # type: ignore[import-untyped] # the package has no types
from torch import Tensor

from iwp_torch.triton_launch import launch

__all__ = ["Places", "everywhere", "log_total_heads", "mean_tokens", "real_places", "rows_of"]

ENTRIES = 4096
"""Entries of a tile of tokens that are added up at once."""

WIDEST = 64
"""Coordinates that one program adds up: a head of width 128 takes two programs."""

SPAN = 512
"""Tokens that one program adds up: few enough that a long sample keeps all multiprocessors busy."""

SCORES = 1024
"""Scores that are added up at once."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The real tokens of a batch.

    Attributes
    ----------
    count : int
        Real tokens of the longest sample.
    counts : Tensor, shape (B,)
        int32: real tokens of each.
    real : Tensor, shape (B, count), or None
        int32: their positions in ascending order, the last one repeated; None where all tokens are real.
    """

    count: int
    counts: Tensor
    real: Tensor | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What kernels take to find tokens."""
        return {
            "real": self.counts if self.real is None else self.real,
            "count": self.count,
            "MASKED": self.real is not None,
        }

    def positions(self, chosen: Tensor) -> Tensor:
        """Return the positions among all tokens of places (B, M), in ascending order, places of `count` last as -1."""
        ranked = chosen.sort(dim=-1).values
        if self.real is None:
            return ranked
        found = self.real.gather(1, ranked.clamp(max=self.count - 1)).to(torch.int64)
        return torch.where(ranked < self.count, found, -1)


def everywhere(samples: int, count: int, device: torch.device) -> Places:
    """Return the places of samples all of whose tokens are real; waits for nothing."""
    return Places(count=count, counts=torch.full((samples,), count, dtype=torch.int32, device=device))


def real_places(mask: Tensor) -> tuple[Places, list[int]]:
    """Return the places of tokens where a mask (B, N) is true, and how many each sample has; waits once."""
    counts = mask.sum(dim=-1, dtype=torch.int32)
    known: list[int] = counts.tolist()
    first = (~mask).to(torch.uint8).argsort(dim=-1, stable=True)
    slots = torch.arange(max(known), device=mask.device)
    real = first.gather(1, torch.minimum(slots, counts[:, None] - 1))
    return Places(count=max(known), counts=counts, real=real.to(torch.int32)), known


@triton.jit
def rows_of(real, sample, places, here, count, MASKED: tl.constexpr):
    """Return the rows in memory of the tokens of a sample at some places."""
    if MASKED:  # noqa: SIM108 - Triton compiles one of two branches, not a conditional expression
        rows = tl.load(real + sample * count + places, mask=here, other=0).to(tl.int64)
    else:
        rows = places.to(tl.int64)
    return rows


@triton.jit(do_not_specialize=["parts"])
def average(
    tokens, sample_stride, head_stride, token_stride, real, counts, means, count, heads, parts,
    WIDTH: tl.constexpr, MASKED: tl.constexpr, ADDED: tl.constexpr, ROWS: tl.constexpr, SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the sum of each span of tokens (B, H, parts, D), or where there is one span their mean (B, H, D).

    `ADDED`: what is read are such sums, all of which make one span, and their mean is over what they were summed of.
    Grid: heads of all samples, blocks of coordinates, spans.

    Tile after tile: neither other samples nor the length of the longest move a rounding, as spans without a token of
    the sample are zeros.
    """
    head = tl.program_id(0).to(tl.int64)
    part = tl.program_id(2)
    sample = head // heads
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < WIDTH
    own = tl.load(counts + sample)
    if ADDED:
        begin, end = 0, count
    else:
        begin, end = part * SPAN, tl.minimum(own, (part + 1) * SPAN)
    start = tokens + sample * sample_stride + head % heads * head_stride
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(begin, end, ROWS):
        places = first + tl.arange(0, ROWS)
        here = places < end
        rows = start + rows_of(real, sample, places, here, count, MASKED) * token_stride
        tile = tl.load(rows[:, None] + at[None, :], mask=here[:, None] & inside[None, :], other=0.0)
        total += tl.sum(tile.to(tl.float32), axis=0)
    if parts == 1:
        total /= own
    tl.store(means + (head * parts + part) * WIDTH + at, total, mask=inside)


def mean_tokens(tokens: Tensor, places: Places) -> Tensor:
    """Return the mean token of each head of each sample: of tokens (B, H, N, D) in float32, (B, H, D)."""
    samples, heads, _, width = tokens.shape
    block = min(WIDEST, max(16, triton.next_power_of_2(width)))

    def added(tokens: Tensor, parts: int, **arguments: Any) -> Tensor:
        sums = torch.empty((samples, heads, parts, width), dtype=torch.float32, device=tokens.device)
        launch(
            average, (samples * heads, triton.cdiv(width, block), parts),
            tokens=tokens, **strides("", tokens), counts=places.counts, means=sums, heads=heads, parts=parts,
            **arguments, WIDTH=width, ROWS=ENTRIES // block, SPAN=SPAN, BLOCK=block,
        )  # fmt: skip
        return sums

    sums = added(tokens, triton.cdiv(places.count, SPAN), ADDED=False, **places.arguments)
    if (parts := sums.shape[2]) > 1:
        sums = added(sums, 1, ADDED=True, real=places.counts, count=parts, MASKED=False)
    return sums[:, :, 0]


def strides(name: str, tokens: Tensor) -> dict[str, int]:
    """Return the strides of tokens (B, H, N, D) as kernels take them, each behind a name."""
    axes = ("sample_stride", "head_stride", "token_stride")
    return {name + axis: tokens.stride(index) for index, axis in enumerate(axes)}


@triton.jit
def total_scores(scores, totals, counts, count, rows, TILE: tl.constexpr):
    """Write the log of the sum of exponentials of each row of scores (B, rows, N), 0 if none is above -inf.

    Grid: rows of all samples.
    """
    row = tl.program_id(0).to(tl.int64)
    own = tl.load(counts + row // rows)
    highest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    for first in range(0, own, TILE):
        places = first + tl.arange(0, TILE)
        score = tl.load(scores + row * count + places, mask=places < own, other=float("-inf"))
        higher = tl.maximum(highest, tl.max(score, axis=0))
        level = tl.where(higher > float("-inf"), higher, 0.0)
        total = total * tl.exp(highest - level) + tl.sum(tl.exp(score - level), axis=0)
        highest = higher
    empty = total <= 0
    tl.store(totals + row, tl.where(empty, 0.0, highest + tl.log(tl.where(empty, 1.0, total))))


def log_total_heads(scores: Tensor, places: Places) -> Tensor:
    """Return the log of what the magnitudes of each head add up to, of log scores (B, R, N): (B, R)."""
    samples, rows, count = scores.shape
    totals = torch.empty((samples, rows), dtype=torch.float32, device=scores.device)
    launch(
        total_scores, (samples * rows,),
        scores=scores, totals=totals, counts=places.counts, count=count, rows=rows, TILE=SCORES,
    )  # fmt: skip
    return totals

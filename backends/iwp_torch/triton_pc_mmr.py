"""Algorithm 1 through Triton: every step is a few launches for all samples, and none waits for a number of another."""

from collections.abc import Sequence
from typing import Any

import torch
import triton  # type: ignore[import-untyped] # the package has no types
from torch import Tensor

from iwp_core.kernels import Cosine, Gaussian
from iwp_torch.triton_factors import compare, prepare_columns, prepare_tokens
from iwp_torch.triton_launch import launch
from iwp_torch.triton_places import Places, mean_tokens, strides
from iwp_torch.triton_ranks import TAKEN, penalise, take_best

__all__ = ["progressive_chunked_mmr"]

AT_ONCE = 16384
"""Most tokens that one program ranks, all in its registers; more are ranked by torch's top-k."""

TILE = 1024
"""Tokens that one program penalises where more are ranked than fit in one program."""

ROOM = 8192
"""Most columns prepared at a time: the memory for them does not grow with the chunk."""

ROWS = 64
"""Tokens of a tile: the rows of one tensor-core instruction of a warp group."""

LINE = 128
"""Bytes of a token multiplied at a time, and entries times bytes of the widest tile of columns. With both at twice this
the registers of a program spill (compiled for compute capability 8.0 and 9.0)."""

NARROWEST = 16
"""Columns, and coordinates, of the least product that tensor cores compute."""

PROGRAMS = 512
"""Programs that a comparison is cut into, if it has as many tiles: about four a multiprocessor of the largest cards."""

STAGES = 3
"""Loads in flight: enough for all coordinates of a head of width 128 in half precision."""


def progressive_chunked_mmr(
    scores: Tensor,
    factors: Sequence[Cosine | Gaussian],
    places: Places,
    wanted: Tensor,
    sizes: Sequence[int],
    *,
    penalty: float,
    floor: float,
    exponent: int,
    center: Tensor | None = None,
) -> Tensor:
    """Do what `iwp_core.pc_mmr.progressive_chunked_mmr` does for every sample, plainly, and look at no number.

    Parameters
    ----------
    scores : torch.Tensor, shape (B, N)
        float32, by place.
    factors : sequence of Cosine or Gaussian
        One or two of a similarity, with tokens (B, H, N, D).
    places : Places
        Of the real tokens; N is the count of the longest sample.
    wanted : torch.Tensor, shape (B,)
        int32: tokens to choose, at most those that are real.
    sizes : sequence of int
        Of the chunks of the sample that wants most. The others' are the first of them, the last one cut short.
    penalty, floor, exponent : float, float, int
    center : torch.Tensor, shape (B, H, D), optional
        `mean_tokens` of the tokens of a Gaussian.

    Returns
    -------
    torch.Tensor, shape (B, M)
        int64 places, chunk by chunk; the order within a chunk is free. A sample that wants fewer is filled with N.

    Notes
    -----
    Every candidate meets every chunk. A sample that has all that it wants is compared no more, but its programs still
    start. Bit for bit what a batch of one sample gives. Memory O(B N) beside the inputs.
    """
    ranking = _Ranking(scores, places, wanted, sum(sizes), penalty=penalty, floor=floor, exponent=exponent)
    comparison: _Comparison | None = None
    begin = 0
    for step, size in enumerate(sizes):
        ranking.take(begin, size)
        if step + 1 < len(sizes):
            if comparison is None:
                comparison = _Comparison(factors, places, min(ROOM, max(sizes[:-1])), center)
            comparison.raise_shared(ranking, begin, size)
        begin += size
    return ranking.chosen


class _Ranking:
    """Scores as ranks, the penalty of the latest chunk still to come, and the tokens chosen so far."""

    def __init__(
        self,
        scores: Tensor,
        places: Places,
        wanted: Tensor,
        total: int,
        *,
        penalty: float,
        floor: float,
        exponent: int,
    ) -> None:
        self.samples, self.count = scores.shape
        self.is_ragged = places.real is not None
        self.wanted = wanted
        self.shared = torch.empty_like(scores, dtype=torch.int32)
        self.chosen = torch.full((self.samples, total), self.count, dtype=torch.int64, device=scores.device)
        self.arguments: dict[str, Any] = {
            "scores": scores.contiguous(),
            "ranks": torch.empty_like(self.shared),
            "shared": self.shared,
            "counts": places.counts,
            "count": self.count,
            "penalty": float(penalty),
            "floor": float(floor),
            "ROOT": exponent == 1,
        }

    def take(self, begin: int, size: int) -> Tensor:
        """Apply the latest penalty, choose the `size` best tokens of each sample, and return their places (B, size)."""
        if self.count <= AT_ONCE:
            self._take_at_once(begin, size)
        else:
            self._take_by_top_k(begin, size)
        return self.chosen[:, begin : begin + size]

    def _take_at_once(self, begin: int, size: int) -> None:
        block = max(16, triton.next_power_of_2(self.count))
        launch(
            take_best, (self.samples,), **self.arguments, chosen=self.chosen, wanted=self.wanted,
            begin=begin, size=size, total=self.chosen.shape[1], FIRST=begin == 0, BLOCK=block,
            num_warps=min(32, max(4, block // 256)),
        )  # fmt: skip

    def _take_by_top_k(self, begin: int, size: int) -> None:
        order = torch.empty_like(self.shared, dtype=torch.int64)
        grid = triton.cdiv(self.count, TILE), self.samples
        launch(penalise, grid, **self.arguments, order=order, FIRST=begin == 0, ROWS=TILE)
        # No two numbers are equal: torch's top-k leaves open which of equal ones it takes.
        best = torch.topk(order, size, sorted=self.is_ragged).indices
        self.arguments["ranks"].scatter_(1, best, TAKEN)
        if self.is_ragged:  # a sample's last chunk may be cut short
            slots = torch.arange(begin, begin + size, device=best.device)
            best = torch.where(slots < self.wanted[:, None], best, self.count)
        self.chosen[:, begin : begin + size] = best


class _Comparison:
    """What it takes to compare all tokens with some columns, in memory that is used again for every chunk."""

    def __init__(
        self, factors: Sequence[Cosine | Gaussian], places: Places, room: int, center: Tensor | None = None
    ) -> None:
        self.factors, self.count = factors, places.count
        first, second = factors[0].tokens, factors[-1].tokens
        self.samples, self.heads, _, width = first.shape
        self.gaussian = isinstance(factors[0], Gaussian)
        self.scale = width**-0.5

        def numbers(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=first.device)

        def columns(tokens: Tensor) -> Tensor:
            return tokens.new_empty((self.samples, self.heads, room, tokens.shape[-1]))

        if self.gaussian and center is None:
            center = mean_tokens(first, places)
        held = columns(first)
        self.tokens: dict[str, Any] = {
            "first": first,
            **strides("first_", first),
            "first_numbers": numbers(self.samples, self.heads, self.count),
            # What a case has no use for is not read, and something stands in for it.
            "center": center if self.gaussian else numbers(1),
            "second": second,
            **strides("second_", second),
            "second_numbers": numbers(self.samples, self.heads, self.count),
            "heads": self.heads,
            **places.arguments,
            "WIDTH": width,
            "OTHER_WIDTH": second.shape[-1],
            "GAUSSIAN": self.gaussian,
            "BLOCK": _block(first),
            "OTHER_BLOCK": _block(second),
        }
        self.columns: dict[str, Any] = {
            "columns": held,
            "remainders": torch.empty_like(held) if self.gaussian and first.dtype != torch.float32 else held,
            "weights": numbers(self.samples, self.heads, room),
            "other_columns": columns(second) if len(factors) > 1 else held,
            "other_weights": numbers(self.samples, self.heads, room),
            "room": room,
        }
        self.widest = LINE // max(first.itemsize, second.itemsize)
        grid = (triton.cdiv(self.count, ROWS), self.samples * self.heads, len(factors))
        launch(prepare_tokens, grid, **self.tokens, scale=self.scale, ROWS=ROWS)

    def raise_shared(self, ranking: _Ranking, begin: int, total: int) -> None:
        """Raise each token's entry of `shared` to its largest duplication with the `total` tokens from `begin` on."""
        room, chosen = self.columns["room"], ranking.chosen
        for start in range(begin, begin + total, room):
            size = min(room, begin + total - start)
            chunk = {"wanted": ranking.wanted, "begin": start, "size": size}
            launch(
                prepare_columns,
                (triton.cdiv(size, NARROWEST), self.samples * self.heads, len(self.factors)),
                **self.tokens, **self.columns, **chunk, chosen=chosen, total=chosen.shape[1],
                scale=self.scale, COLS=NARROWEST,
            )  # fmt: skip
            width = min(self.widest, max(NARROWEST, triton.next_power_of_2(size)))
            tiles, cuts = triton.cdiv(self.count, ROWS), triton.cdiv(size, width)
            span = triton.cdiv(cuts, min(cuts, max(1, PROGRAMS // (tiles * self.samples)))) * width
            launch(
                compare, (tiles, triton.cdiv(size, span), self.samples),
                **self.tokens, **self.columns, **chunk, shared=ranking.shared, span=span,
                SECOND=len(self.factors) > 1, ROWS=ROWS, COLS=width, num_stages=STAGES,
            )  # fmt: skip


def _block(tokens: Tensor) -> int:
    """Return how many coordinates are multiplied at a time: a power of two, as tiles must be."""
    all_of_them: int = triton.next_power_of_2(tokens.shape[-1])
    return max(NARROWEST, min(LINE // tokens.itemsize, all_of_them))

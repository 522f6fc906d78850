"""Algorithm 1 through Triton: every step is a few launches, and none waits for a number of the step before."""

from collections.abc import Sequence
from typing import Any

import torch
import triton  # type: ignore[import-untyped] # the package has no types
from torch import Tensor

from iwp_core.comparison import Duplication
from iwp_core.similarity import Gaussian
from iwp_torch.triton_factors import compare, prepare_columns, prepare_tokens
from iwp_torch.triton_launch import launch
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
    scores: Tensor, duplication: Duplication, sizes: Sequence[int], *, penalty: float, floor: float, exponent: int
) -> Tensor:
    """Do what `iwp_core.pc_mmr.progressive_chunked_mmr` does, plainly and without a look at a number from the host.

    Parameters
    ----------
    scores : torch.Tensor, shape (N,)
        float32.
    duplication : iwp_core.duplication.Duplication
    sizes : sequence of int
    penalty, floor, exponent : float, float, int

    Returns
    -------
    torch.Tensor, shape (M,)
        int64, chunk by chunk; the order within a chunk is free.

    Notes
    -----
    Every candidate meets every chunk. Memory O(N) beside the inputs.
    """
    ranking = _Ranking(scores, sum(sizes), penalty=penalty, floor=floor, exponent=exponent)
    comparison: _Comparison | None = None
    start = 0
    for step, size in enumerate(sizes):
        newest = ranking.take(start, size)
        start += size
        if step + 1 < len(sizes):
            if comparison is None:
                comparison = _Comparison(duplication, min(ROOM, max(sizes[:-1])))
            comparison.raise_shared(ranking.shared, newest)
    return ranking.chosen


class _Ranking:
    """Scores as ranks, the penalty of the latest chunk still to come, and the tokens chosen so far."""

    def __init__(self, scores: Tensor, total: int, *, penalty: float, floor: float, exponent: int) -> None:
        self.count = scores.shape[0]
        self.shared = torch.empty_like(scores, dtype=torch.int32)
        self.chosen = torch.empty(total, dtype=torch.int64, device=scores.device)
        self.arguments: dict[str, Any] = {
            "scores": scores.contiguous(),
            "ranks": torch.empty_like(self.shared),
            "shared": self.shared,
            "count": self.count,
            "penalty": float(penalty),
            "floor": float(floor),
            "ROOT": exponent == 1,
        }

    def take(self, start: int, size: int) -> Tensor:
        """Apply the latest penalty, choose the `size` best tokens, and return their positions."""
        chosen = self.chosen[start : start + size]
        rank = self._take_at_once if self.count <= AT_ONCE else self._take_by_top_k
        rank(chosen, FIRST=start == 0)
        return chosen

    def _take_at_once(self, chosen: Tensor, **first: bool) -> None:
        block = max(16, triton.next_power_of_2(self.count))
        launch(
            take_best, (1,), **self.arguments, **first, chosen=chosen, size=chosen.shape[0], BLOCK=block,
            num_warps=min(32, max(4, block // 256)),
        )  # fmt: skip

    def _take_by_top_k(self, chosen: Tensor, **first: bool) -> None:
        order = torch.empty_like(self.shared, dtype=torch.int64)
        launch(penalise, (triton.cdiv(self.count, TILE),), **self.arguments, **first, order=order, ROWS=TILE)
        # No two numbers are equal: torch's top-k leaves open which of equal ones it takes.
        chosen.copy_(torch.topk(order, chosen.shape[0], sorted=False).indices)
        self.arguments["ranks"].index_fill_(0, chosen, TAKEN)


class _Comparison:
    """What it takes to compare all tokens with some columns, in memory that is used again for every chunk."""

    def __init__(self, duplication: Duplication, room: int) -> None:
        self.factors = duplication.factors
        first, second = self.factors[0].tokens, self.factors[-1].tokens
        self.heads, self.count, width = first.shape
        self.gaussian = isinstance(self.factors[0], Gaussian)
        self.scale = width**-0.5

        def numbers(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=first.device)

        def columns(tokens: Tensor) -> Tensor:
            return tokens.new_empty((self.heads, room, tokens.shape[-1]))

        held = columns(first)
        self.tokens: dict[str, Any] = {
            "first": first,
            "first_head_stride": first.stride(0),
            "first_token_stride": first.stride(1),
            "first_numbers": numbers(self.heads, self.count),
            # What a case has no use for is not read, and something stands in for it.
            "center": first.mean(dim=1, dtype=torch.float32) if self.gaussian else numbers(1),
            "second": second,
            "second_head_stride": second.stride(0),
            "second_token_stride": second.stride(1),
            "second_numbers": numbers(self.heads, self.count),
            "count": self.count,
            "WIDTH": width,
            "OTHER_WIDTH": second.shape[-1],
            "GAUSSIAN": self.gaussian,
            "BLOCK": _block(first),
            "OTHER_BLOCK": _block(second),
        }
        self.columns: dict[str, Any] = {
            "columns": held,
            "remainders": torch.empty_like(held) if self.gaussian and first.dtype != torch.float32 else held,
            "weights": numbers(self.heads, room),
            "other_columns": columns(second) if len(self.factors) > 1 else held,
            "other_weights": numbers(self.heads, room),
            "room": room,
        }
        self.widest = LINE // max(first.itemsize, second.itemsize)
        grid = (triton.cdiv(self.count, ROWS), self.heads, len(self.factors))
        launch(prepare_tokens, grid, **self.tokens, scale=self.scale, ROWS=ROWS)

    def raise_shared(self, shared: Tensor, chosen: Tensor) -> None:
        """Raise each token's entry of `shared` to its largest duplication with the tokens `chosen`."""
        room = self.columns["room"]
        for start in range(0, chosen.shape[0], room):
            newest = chosen[start : start + room]
            size = newest.shape[0]
            launch(
                prepare_columns, (triton.cdiv(size, NARROWEST), self.heads, len(self.factors)),
                **self.tokens, **self.columns, chosen=newest, size=size, scale=self.scale, COLS=NARROWEST,
            )  # fmt: skip
            width = min(self.widest, max(NARROWEST, triton.next_power_of_2(size)))
            tiles, cuts = triton.cdiv(self.count, ROWS), triton.cdiv(size, width)
            span = triton.cdiv(cuts, min(cuts, max(1, PROGRAMS // tiles))) * width
            launch(
                compare, (tiles, triton.cdiv(size, span)),
                **self.tokens, **self.columns, shared=shared, size=size, span=span, heads=self.heads,
                SECOND=len(self.factors) > 1, ROWS=ROWS, COLS=width, num_stages=STAGES,
            )  # fmt: skip


def _block(tokens: Tensor) -> int:
    """Return how many coordinates are multiplied at a time: a power of two, as tiles must be."""
    all_of_them: int = triton.next_power_of_2(tokens.shape[-1])
    return max(NARROWEST, min(LINE // tokens.itemsize, all_of_them))

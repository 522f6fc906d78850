"""Triton kernels that penalise scores and take the best: exact, deterministic, ties to the lower position.

A score is kept as its rank, an int32 that orders like the float32 (its bits, all but the sign flipped where negative).
The rank below all of them marks a token as taken, which a score of -inf does not.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN202, ANN201 - Triton reads annotations of kernels: only constants have one

import triton  # type: ignore[import-untyped] # the package has no types
import triton.language as tl  # type: ignore[import-untyped] # the package has no types

__all__ = ["TAKEN", "penalise", "take_best"]

TAKEN = -(2**31)
"""Rank of a token that is taken."""

_TAKEN = tl.constexpr(TAKEN)
_LEAST = tl.constexpr(TAKEN + 0x7FFFFF)
"""Rank of the score -inf."""


@triton.jit
def _flip(bits):
    """Turn bits of a float32 into a rank, or a rank into bits."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _penalised(scores, ranks, shared, places, here, penalty, floor, FIRST: tl.constexpr, ROOT: tl.constexpr):
    """Return the ranks of the scores behind one chunk's penalty, and forget the penalty."""
    if FIRST:
        old = tl.zeros(places.shape, tl.int32)
        score = tl.load(scores + places, mask=here, other=0.0)
    else:
        old = tl.load(ranks + places, mask=here, other=_TAKEN)
        similar = tl.load(shared + places, mask=here, other=0).to(tl.float32, bitcast=True)
        if ROOT:
            similar = tl.sqrt(similar)
        factor = tl.maximum(1.0 - penalty * similar, floor)
        positive = factor > 0
        loss = tl.where(positive, tl.log(tl.where(positive, factor, 1.0)), float("-inf"))
        score = _flip(old).to(tl.float32, bitcast=True) + tl.where(factor < 1, loss, 0.0)
    tl.store(shared + places, tl.zeros(places.shape, tl.int32), mask=here)
    score = tl.where(score == 0, 0.0, score)  # -0 ties with 0
    # A score that is no number (of unchecked input) must not pass for a token that is taken.
    rank = tl.maximum(_flip(score.to(tl.int32, bitcast=True)), _LEAST)
    return tl.where(here & (old != _TAKEN), rank, _TAKEN)


@triton.jit
def penalise(
    scores, ranks, shared, order, counts, count, penalty, floor,
    FIRST: tl.constexpr, ROOT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Update `ranks` (B, N), and write `order` (B, N): int64 numbers that differ, larger for what is chosen earlier.

    `FIRST`: take ranks from `scores`, no penalty yet. Grid: tiles of tokens, samples.
    """
    sample = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = sample * count + places
    real = places < tl.load(counts + sample)
    rank = _penalised(scores, ranks, shared, at, real, penalty, floor, FIRST, ROOT)
    tl.store(ranks + at, rank, mask=places < count)
    tl.store(order + at, (rank.to(tl.int64) << 32) + (0x7FFFFFFF - places), mask=places < count)


@triton.jit(do_not_specialize=["begin", "size", "total"])
def take_best(
    scores, ranks, shared, chosen, counts, wanted, count, begin, size, total, penalty, floor,
    FIRST: tl.constexpr, ROOT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Update `ranks` (B, N), and write the places of the best tokens to `chosen` (B, total) from `begin` on, ascending.

    They are `size`, or as many as the sample still wants. Grid: samples; each has all its tokens at once: BLOCK >= N.
    """
    sample = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    at = sample * count + places
    real = places < tl.load(counts + sample)
    size = tl.minimum(size, tl.maximum(tl.load(wanted + sample) - begin, 0))
    rank = _penalised(scores, ranks, shared, at, real, penalty, floor, FIRST, ROOT)
    # The rank of the last token to take, bit by bit: the largest that `size` tokens reach.
    reach = tl.where(tl.sum((rank >= 0).to(tl.int32)) >= size, 0, _TAKEN)
    for bit in range(31):
        higher = reach + (1 << (30 - bit))
        reach = tl.where(tl.sum((rank >= higher).to(tl.int32)) >= size, higher, reach)
    above, level = rank > reach, rank == reach
    room = size - tl.sum(above.to(tl.int32))
    taken = above | (level & (tl.cumsum(level.to(tl.int32)) <= room))
    slots = tl.cumsum(taken.to(tl.int32)) - 1
    tl.store(chosen + sample * total + begin + slots, places.to(tl.int64), mask=taken)
    tl.store(ranks + at, tl.where(taken, _TAKEN, rank), mask=places < count)

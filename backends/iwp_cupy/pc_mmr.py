"""Algorithm 1 on CUDA: chunk by chunk without waiting for the device, as sizes of chunks are known beforehand."""

from collections.abc import Sequence
from typing import Any

from iwp_core._arrays import accumulation_dtype
from iwp_core.duplication import Duplication, PairwiseDuplication
from iwp_core.similarity import Cosine, Gaussian
from iwp_cupy.compiled import compiled, cupy, launch, served, token_arguments
from iwp_cupy.magnitude import LANES

__all__ = ["progressive_chunked_mmr", "serves_selection"]

CHOOSERS = 1024
"""Threads of the one block that chooses a chunk: CHOOSERS of kernels.cu."""

SIDE, ROWS_EACH = 16, 4
"""Threads along a side of a block that compares tokens, and candidates of each: as in kernels.cu."""

ABSENT = (None, 0, 0, 0, 0)
"""The arguments of a kernel for the second of two factors where there is one."""


def serves_selection(scores: Any, duplication: PairwiseDuplication, *_arguments: Any, **_options: Any) -> bool:
    """Return whether the kernels apply: the core's own duplication, one precision, a device that they compile for."""
    if not isinstance(duplication, Duplication):
        return False
    first, second = _pair(duplication)
    if scores.dtype != accumulation_dtype(first.tokens):
        return False
    pairs = ((first, second), (first, first), (second, second))
    return all(served(one.tokens, other.tokens) for one, other in pairs)


def progressive_chunked_mmr(
    scores: Any, duplication: Duplication, sizes: Sequence[int], *, penalty: float, floor: float, exponent: int
) -> Any:
    """Do what `iwp_core.pc_mmr.progressive_chunked_mmr` does.

    Every candidate is compared with every chunk but the last: a device does that faster than the reference's lazy
    rounds, each of which waits for it. Identical tokens need no finding, as the kernels give them identical numbers.
    Scores (N,), indices of candidates twice (N,) and largest duplications (N,) are all that is held.
    """
    xp = cupy()
    tokens, count = scores.shape[0], sum(sizes)
    first, second = _pair(duplication)
    run = compiled(first.tokens, second.tokens)
    with scores.device:
        factors = (*_factor_arguments(first), *(_factor_arguments(second) if second is not first else (*ABSENT, None)))
        scores = scores.copy()
        most = xp.zeros_like(scores)
        candidates, rest = xp.arange(tokens, dtype="int32"), xp.empty((tokens,), dtype="int32")
        chosen, chunks = xp.empty((count,), dtype="int64"), xp.empty((count,), dtype="int32")
        taken = 0
        for size in sizes:
            left = tokens - taken
            options = (float(penalty), float(floor), exponent)
            choice = (scores, most, candidates, rest, left, size, *options, taken, chosen, chunks)
            launch(run["choose_chunk"], 1, CHOOSERS, *choice)
            candidates, rest = rest, candidates
            begin, taken, left = taken, taken + size, left - size
            if taken == count:
                break
            wide = size > SIDE
            blocks = -(-left // (SIDE * ROWS_EACH)) * -(-size // (SIDE * ROWS_EACH if wide else SIDE))
            gaussian = isinstance(first, Gaussian)
            shape = (first.tokens.shape[0], tokens, int(gaussian), int(wide))
            chunk = (candidates, left, chosen, begin, size, most)
            launch(run["compare_chunk"], blocks, SIDE * SIDE, *factors, *shape, *chunk)
        ordered = xp.empty_like(chosen)
        launch(run["order_chunks"], -(-count // LANES), LANES, scores, chosen, chunks, count, ordered)
    return ordered


def _pair(duplication: Duplication) -> tuple[Cosine | Gaussian, Cosine | Gaussian]:
    """Return the factors of a similarity; of one, that one twice."""
    factors = duplication.factors
    return factors[0], factors[-1]


def _factor_arguments(factor: Cosine | Gaussian) -> tuple[Any, ...]:
    """Return what the comparing kernel takes for a factor: its tokens, and the inverse norms of a cosine's."""
    tokens = factor.tokens
    arguments = token_arguments(tokens)
    if isinstance(factor, Gaussian):
        return *arguments, None
    heads, count, _ = tokens.shape
    inverse_norms = cupy().empty((heads, count), dtype=accumulation_dtype(tokens))
    launch(compiled(tokens, tokens)["invert_norms"], heads * -(-count // LANES), LANES, *arguments, count, inverse_norms)
    return *arguments, inverse_norms

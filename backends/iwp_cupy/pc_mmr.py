"""Algorithm 1 on CUDA, chunk after chunk: nothing waits for the device, as sizes of chunks are known beforehand."""

from collections.abc import Sequence
from typing import Any

from iwp_core._arrays import accumulation_dtype
from iwp_core.comparison import Duplication
from iwp_core.duplication import PairwiseDuplication
from iwp_core.similarity import Cosine, Gaussian
from iwp_cupy.compiled import compiled, cupy, launch, served, token_arguments
from iwp_cupy.magnitude import LANES

__all__ = ["progressive_chunked_mmr", "serves_selection"]

CHOOSERS = 1024
"""Threads of the one block that chooses a chunk: CHOOSERS of kernels.cu."""

SIDE, ROWS_EACH = 16, 4
"""Threads along a side of a block that compares tokens, and candidates of each: as in kernels.cu."""


def serves_selection(scores: Any, duplication: PairwiseDuplication, *_arguments: Any, **_options: Any) -> bool:
    """Return whether the kernels apply: the core's own duplication, one precision, a device that they compile for."""
    if not isinstance(duplication, Duplication):
        return False
    first, second = duplication.factors[0].tokens, duplication.factors[-1].tokens
    pairs = ((first, second), (first, first), (second, second))
    return scores.dtype == accumulation_dtype(first) and all(served(one, other) for one, other in pairs)


def progressive_chunked_mmr(
    scores: Any, duplication: Duplication, sizes: Sequence[int], *, penalty: float, floor: float, exponent: int
) -> Any:
    """Do what `iwp_core.pc_mmr.progressive_chunked_mmr` does.

    Every candidate is compared with every chunk but the last. The reference's lazy rounds compare less, but each of
    them waits for the device. Identical tokens need no finding, as the kernels give them identical numbers. Beside
    inverse norms only vectors are held: scores, largest duplications, and indices of candidates and of chosen tokens.
    """
    xp = cupy()
    tokens, count = scores.shape[0], sum(sizes)
    with scores.device:
        compare = _Comparison(duplication)
        run = compare.kernels
        scores = scores.copy()
        most = xp.zeros_like(scores)
        candidates, rest = xp.arange(tokens, dtype="int32"), xp.empty((tokens,), dtype="int32")
        chosen, chunks = xp.empty((count,), dtype="int64"), xp.empty((count,), dtype="int32")
        options = (float(penalty), float(floor), exponent)
        begin = 0
        for size in sizes:
            choice = (candidates, rest, tokens - begin, size, *options, begin, chosen, chunks)
            launch(run["choose_chunk"], 1, CHOOSERS, scores, most, *choice)
            candidates, rest = rest, candidates
            if begin + size < count:
                compare(candidates, tokens - begin - size, chosen, begin, size, most)
            begin += size
        ordered = xp.empty_like(chosen)
        launch(run["order_chunks"], -(-count // LANES), LANES, scores, chosen, chunks, count, ordered)
    return ordered


class _Comparison:
    """Compares candidates with a chunk by the factors of a similarity."""

    def __init__(self, duplication: Duplication) -> None:
        first, *others = duplication.factors
        second = others[0] if others else first
        heads, tokens, _ = first.tokens.shape
        self.kernels = compiled(first.tokens, second.tokens)
        self.factors = (
            *_factor_arguments(first),
            *(_factor_arguments(second) if others else (None, 0, 0, 0, 0, None)),
            heads,
            tokens,
            int(isinstance(first, Gaussian)),
        )

    def __call__(self, candidates: Any, count: int, chosen: Any, begin: int, size: int, most: Any) -> None:
        """Raise ``most`` of the first `count` candidates to their duplication with chosen[begin : begin + size]."""
        wide = size > SIDE
        rows, columns = SIDE * ROWS_EACH, SIDE * ROWS_EACH if wide else SIDE
        blocks = -(-count // rows) * -(-size // columns)
        chunk = (int(wide), candidates, count, chosen, begin, size, most)
        launch(self.kernels["compare_chunk"], blocks, SIDE * SIDE, *self.factors, *chunk)


def _factor_arguments(factor: Cosine | Gaussian) -> tuple[Any, ...]:
    """Return what the comparing kernel takes for a factor: its tokens, and the inverse norms of a cosine's."""
    tokens = factor.tokens
    arguments = token_arguments(tokens)
    if isinstance(factor, Gaussian):
        return *arguments, None
    heads, count, _ = tokens.shape
    inverse_norms = cupy().empty((heads, count), dtype=accumulation_dtype(tokens))
    launch(
        compiled(tokens, tokens)["invert_norms"], heads * -(-count // LANES), LANES, *arguments, count, inverse_norms
    )
    return *arguments, inverse_norms

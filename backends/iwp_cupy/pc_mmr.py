"""Algorithm 1 on CUDA, chunk after chunk, for all samples of a batch at once.

Nothing waits for the device, as sizes of chunks are known beforehand.
"""

from collections.abc import Sequence
from typing import Any

from iwp_core._arrays import accumulation_dtype
from iwp_core.comparison import Duplication
from iwp_core.duplication import PairwiseDuplication
from iwp_core.similarity import Cosine, Gaussian
from iwp_cupy.compiled import compiled, cupy, launch, served, token_arguments
from iwp_cupy.magnitude import LANES
from iwp_cupy.places import Places, everywhere

__all__ = ["chosen_places", "progressive_chunked_mmr", "serves_factors", "serves_selection"]

CHOOSERS = 1024
"""Threads of the one block that chooses a chunk: CHOOSERS of kernels.cu."""

SIDE, ROWS_EACH = 16, 4
"""Threads along a side of a block that compares tokens, and candidates of each: as in kernels.cu."""


def serves_selection(scores: Any, duplication: PairwiseDuplication, *_arguments: Any, **_options: Any) -> bool:
    """Return whether the kernels apply: the core's own duplication, and scores in its precision."""
    if not isinstance(duplication, Duplication):
        return False
    factors = duplication.factors
    return scores.dtype == accumulation_dtype(factors[0].tokens) and serves_factors(factors)


def serves_factors(factors: Sequence[Cosine | Gaussian]) -> bool:
    """Return whether the kernels compare tokens by some factors: one precision, a device that they compile for."""
    first, second = factors[0].tokens, factors[-1].tokens
    return all(served(one, other) for one, other in ((first, second), (first, first), (second, second)))


def progressive_chunked_mmr(
    scores: Any, duplication: Duplication, sizes: Sequence[int], *, penalty: float, floor: float, exponent: int
) -> Any:
    """Do what `iwp_core.pc_mmr.progressive_chunked_mmr` does, as `chosen_places` of a batch of one sample."""
    with scores.device:
        factors = [type(factor)(factor.tokens[None]) for factor in duplication.factors]
        places = everywhere(1, scores.shape[0])
        wanted = cupy().full_like(places.counts, sum(sizes))
        return chosen_places(
            scores[None].copy(), factors, places, wanted, sizes, penalty=penalty, floor=floor, exponent=exponent
        )[0]


def chosen_places(
    scores: Any,
    factors: Sequence[Cosine | Gaussian],
    places: Places,
    wanted: Any,
    sizes: Sequence[int],
    *,
    penalty: float,
    floor: float,
    exponent: int,
) -> Any:
    """Return the places that algorithm 1 chooses of each sample, (B, M), chunk after chunk, on the current device.

    Every candidate is compared with every chunk but the last. The reference's lazy rounds compare less, but each of
    them waits for the device. Identical tokens need no finding, as the kernels give them identical numbers. Beside
    inverse norms only vectors are held: scores, largest duplications, and indices of candidates and of chosen tokens.

    Parameters
    ----------
    scores : array, shape (B, N)
        By place; written to.
    factors : sequence of Cosine or Gaussian
        One or two of a similarity, with tokens (B, H, N, D).
    places : Places
        Of the real tokens; N is the count of the longest sample.
    wanted : array, shape (B,)
        int32: tokens to choose, at most those that are real. A sample that wants fewer than M is filled with N.
    sizes : sequence of int
        Of the chunks of the sample that wants most. The others' are the first of them, the last one cut short.
    penalty, floor, exponent : float, float, int
    """
    xp = cupy()
    (samples, tokens), room = scores.shape, sum(sizes)
    compare = _Comparison(factors, places, wanted)
    run = compare.kernels
    most = xp.zeros_like(scores)
    candidates, rest = (xp.empty((samples, tokens), dtype="int32") for _ in range(2))
    candidates[...] = xp.arange(tokens, dtype="int32")
    chosen, chunks = xp.empty((samples, room), dtype="int64"), xp.empty((samples, room), dtype="int32")
    options = (float(penalty), float(floor), exponent)
    begin = 0
    for size in sizes:
        lists = (candidates, rest, places.counts, wanted, tokens, room, size)
        launch(run["choose_chunk"], samples, CHOOSERS, scores, most, *lists, *options, begin, chosen, chunks)
        candidates, rest = rest, candidates
        if begin + size < room:
            compare(candidates, chosen, begin, size, most)
        begin += size
    ordered = xp.empty_like(chosen)
    blocks = -(-samples * room // LANES)
    launch(run["order_chunks"], blocks, LANES, scores, chosen, chunks, wanted, samples, tokens, room, ordered)
    return ordered


class _Comparison:
    """Compares candidates with a chunk by the factors of a similarity."""

    def __init__(self, factors: Sequence[Cosine | Gaussian], places: Places, wanted: Any) -> None:
        first, *others = factors
        second = others[0] if others else first
        self.samples, heads = first.tokens.shape[:2]
        self.tokens = places.count
        self.kernels = compiled(first.tokens, second.tokens)
        self.factors = (
            *_factor_arguments(first, places),
            *(_factor_arguments(second, places) if others else (None, 0, 0, 0, 0, 0, None)),
            places.real,
            places.counts,
            wanted,
            heads,
            self.tokens,
            int(isinstance(first, Gaussian)),
        )

    def __call__(self, candidates: Any, chosen: Any, begin: int, size: int, most: Any) -> None:
        """Raise ``most`` of each sample's candidates to their duplication with chosen[:, begin : begin + size]."""
        wide = size > SIDE
        rows, columns = SIDE * ROWS_EACH, SIDE * ROWS_EACH if wide else SIDE
        row_blocks = -(-(self.tokens - begin - size) // rows)
        blocks = self.samples * row_blocks * -(-size // columns)
        chunk = (int(wide), row_blocks, candidates, chosen.shape[1], chosen, begin, size, most)
        launch(self.kernels["compare_chunk"], blocks, SIDE * SIDE, *self.factors, *chunk)


def _factor_arguments(factor: Cosine | Gaussian, places: Places) -> tuple[Any, ...]:
    """Return what the comparing kernel takes for a factor: its tokens, and the inverse norms of a cosine's."""
    tokens = factor.tokens
    arguments = token_arguments(tokens)
    if isinstance(factor, Gaussian):
        return *arguments, None
    samples, heads = tokens.shape[:2]
    inverse_norms = cupy().empty((samples, heads, places.count), dtype=accumulation_dtype(tokens))
    blocks = samples * heads * -(-places.count // LANES)
    kernel = compiled(tokens, tokens)["invert_norms"]
    launch(kernel, blocks, LANES, *arguments, places.real, heads, places.count, inverse_norms)
    return *arguments, inverse_norms

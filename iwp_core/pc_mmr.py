"""Progressive chunked MMR (algorithm 1): as it is written for few tokens, lazily for many, with the same answer.

Penalties only lower a score, so a score that misses some of them is an upper bound. A chunk needs exact scores only
for the candidates that such bounds put among its best; most tokens never meet most chunks. With few tokens that
bookkeeping costs more than it saves.
"""

from collections.abc import Sequence
from itertools import accumulate

from iwp_core._arrays import Array, arange_indices, locate, namespace, order_descending, safe_log, scatter, tiles
from iwp_core._plugins import overridable
from iwp_core.duplication import PairwiseDuplication

__all__ = ["largest", "progressive_chunked_mmr"]

FEW = 512
"""Up to so many tokens every candidate is compared with every chunk."""

COLUMNS = 256
"""Chosen tokens that candidates are compared with at a time."""

ROWS = 1024
"""Candidates compared at a time."""

PATIENCE = 256
"""Least number of leading candidates that catch up together: a round of bookkeeping costs as much as some of them."""

ROUND = 64
"""Candidates catch up in multiples of this many: few shapes, for libraries that compile each one anew."""


@overridable
def progressive_chunked_mmr(
    scores: Array,
    duplication: PairwiseDuplication,
    sizes: Sequence[int],
    *,
    penalty: float,
    floor: float,
    exponent: int,
) -> Array:
    """Choose tokens chunk by chunk.

    Parameters
    ----------
    scores : array, shape (N,)
        Log magnitude.
    duplication : callable
        As in `Strategy.select`. Tokens that its attribute ``identical`` (if it has one) calls identical get equal
        penalties.
    sizes : sequence of int
        Sizes of the chunks; their sum M is at most N.
    penalty, floor, exponent : float, float, int
        As in `PCMMR`.

    Returns
    -------
    array of int, shape (M,)
        In the order of choice.

    Notes
    -----
    The same answer as algorithm 1 run plainly, if `duplication` gives a pair the same number whenever it is asked.
    Memory O(N); up to `FEW` tokens, one block of all of them and a chunk.
    """
    if scores.shape[0] <= FEW:
        return _plainly(scores, duplication, sizes, penalty=penalty, floor=floor, exponent=exponent)
    candidates = _Candidates(scores, duplication, penalty=penalty, floor=floor, exponent=exponent)
    for size in sizes:
        candidates.catch_up(size)
        candidates.move_best(size)
    return namespace(scores).concat(candidates.chunks)


def _plainly(
    scores: Array,
    duplication: PairwiseDuplication,
    sizes: Sequence[int],
    *,
    penalty: float,
    floor: float,
    exponent: int,
) -> Array:
    """Run algorithm 1 as it is written."""
    xp = namespace(scores)
    candidates = arange_indices(scores.shape[0], scores)
    twins = getattr(duplication, "identical", None)
    everyone = candidates
    chunks: list[Array] = []
    for size in sizes:
        if chunks:
            shared = xp.max(duplication(everyone, chunks[-1]), axis=1)
            shared = xp.take(shared, candidates if twins is None else xp.take(twins, candidates))
            scores = scores + safe_log(_factor(shared, penalty=penalty, floor=floor, exponent=exponent))
        order = order_descending(scores)
        rest = xp.sort(order[size:])
        chunks.append(xp.take(candidates, order[:size]))
        candidates, scores = xp.take(candidates, rest), xp.take(scores, rest)
    return xp.concat(chunks)


def _factor(duplication: Array, *, penalty: float, floor: float, exponent: int) -> Array:
    """Return the factors max(floor, 1 - penalty * s) for duplications s, or for their roots."""
    xp = namespace(duplication)
    s = duplication if exponent == 2 else xp.sqrt(duplication)  # noqa: PLR2004 - the exponent of S
    return xp.clip(1.0 - penalty * s, min=floor)


class _Candidates:
    """The tokens not chosen yet, with scores that may miss the penalties of late chunks, in ascending position."""

    def __init__(
        self, scores: Array, duplication: PairwiseDuplication, *, penalty: float, floor: float, exponent: int
    ) -> None:
        self.xp = namespace(scores)
        self.duplication = duplication
        self.penalty, self.floor, self.exponent = penalty, floor, exponent
        self.positions = arange_indices(scores.shape[0], scores)
        self.scores = scores
        self.applied = self.xp.zeros_like(self.positions)  # chunks whose penalty is in the score
        self.chunks: list[Array] = []

    def catch_up(self, size: int) -> None:
        """Apply missed penalties until the `size` best scores miss none."""
        xp, latest = self.xp, len(self.chunks)
        if latest == 0:
            return
        together = max(2 * size, PATIENCE)  # the next chunk will want as many again
        while True:
            best = largest(self.scores, min(together, self.scores.shape[0]))
            behind = self.applied < latest
            if not xp.any(behind & (self.scores >= best[size - 1])):
                return
            behind = behind & (self.scores >= best[-1])
            start = int(xp.min(xp.where(behind, self.applied, latest)))
            stop = self._end_of_block(start)
            self._penalise(_padded(xp.nonzero(behind & (self.applied < stop))[0]), start, stop)

    def _end_of_block(self, start: int) -> int:
        """Return the end of the run of chunks from `start` on that candidates are compared with in one block."""
        ends = accumulate(chunk.shape[0] for chunk in self.chunks[start:])
        return start + max(1, sum(1 for end in ends if end <= COLUMNS))

    def _penalise(self, rows: Array, start: int, stop: int) -> None:
        """Apply to the candidates `rows`, ascending, those penalties of the chunks start..stop-1 that they miss."""
        xp = self.xp
        scores, applied = xp.take(self.scores, rows), xp.take(self.applied, rows)
        factors = self._factors(xp.take(self.positions, rows), self.chunks[start:stop])
        for index, factor in enumerate(factors, start):
            scores = xp.where(applied <= index, scores + safe_log(factor), scores)
        self.scores = scatter(self.scores, rows, scores)
        self.applied = scatter(self.applied, rows, xp.full_like(rows, stop))

    def _factors(self, tokens: Array, chunks: list[Array]) -> list[Array]:
        """Return for each chunk the factor on each token's magnitude, equal for identical tokens."""
        xp, twins = self.xp, getattr(self.duplication, "identical", None)
        distinct, inverse = (tokens, None) if twins is None else xp.unique_inverse(xp.take(twins, tokens))
        by_chunk = self._factors_of_one if len(chunks) == 1 else self._factors_of_several
        parts = [by_chunk(distinct[tile], chunks) for tile in tiles(distinct.shape[0], ROWS)]
        factors = [xp.concat(part) for part in zip(*parts, strict=True)]
        return factors if inverse is None else [xp.take(factor, inverse) for factor in factors]

    def _factors_of_several(self, tokens: Array, chunks: list[Array]) -> list[Array]:
        """Compare with small chunks in one block."""
        block = self.duplication(tokens, self.xp.concat(chunks))
        ends = accumulate(chunk.shape[0] for chunk in chunks)
        return [self._factor(block[:, end - chunk.shape[0] : end]) for chunk, end in zip(chunks, ends, strict=True)]

    def _factors_of_one(self, tokens: Array, chunks: list[Array]) -> list[Array]:
        """Compare with a large chunk block by block, leaving out tokens whose factor can fall no further."""
        xp = self.xp
        (chunk,) = chunks
        factors: Array | None = None
        open_rows = arange_indices(tokens.shape[0], tokens)
        for cols in tiles(chunk.shape[0], COLUMNS):
            latest = self._factor(self.duplication(xp.take(tokens, open_rows), chunk[cols]))
            if factors is None:
                factors = latest
            else:
                factors = scatter(factors, open_rows, xp.minimum(xp.take(factors, open_rows), latest))
            still_open = xp.nonzero(factors > self.floor)[0]
            if still_open.shape[0] == 0:
                break
            open_rows = _padded(still_open)
        return [factors]

    def _factor(self, block: Array) -> Array:
        """Return the factor of each row of a block, by its largest duplication."""
        largest_in_row = self.xp.max(block, axis=1)
        return _factor(largest_in_row, penalty=self.penalty, floor=self.floor, exponent=self.exponent)

    def move_best(self, size: int) -> None:
        """Choose the `size` best candidates as the next chunk; their scores must miss no penalty."""
        xp = self.xp
        reach = xp.nonzero(self.scores >= largest(self.scores, size)[-1])[0]
        chosen = xp.take(reach, order_descending(xp.take(self.scores, reach))[:size])
        is_chosen, _ = locate(xp.sort(chosen), arange_indices(self.scores.shape[0], chosen))
        rest = xp.nonzero(~is_chosen)[0]
        self.chunks.append(xp.take(self.positions, chosen))
        self.positions, self.scores, self.applied = (
            xp.take(array, rest) for array in (self.positions, self.scores, self.applied)
        )


@overridable
def largest(scores: Array, count: int) -> Array:
    """Return the `count` largest entries of a vector, in descending order."""
    return namespace(scores).sort(scores, descending=True, stable=False)[:count]


def _padded(positions: Array) -> Array:
    """Repeat the last position up to a multiple of `ROUND`, or below that to a power of two."""
    xp, count = namespace(positions), positions.shape[0]
    wanted = -(-count // ROUND) * ROUND if count > ROUND else 1 << (count - 1).bit_length()
    return xp.concat([positions, xp.broadcast_to(positions[-1:], (wanted - count,))])

"""Progressive chunked MMR (algorithm 1), run lazily and exactly.

Penalties only lower a score, so a score that misses some of them is an upper bound. A chunk needs exact scores only
for the candidates that such bounds put among its best; most tokens never meet most chunks.
"""

from collections.abc import Sequence
from itertools import accumulate

from iwp_core._arrays import Array, arange_indices, locate, namespace, order_descending, safe_log, scatter, tiles
from iwp_core._plugins import overridable
from iwp_core.duplication import PairwiseDuplication

__all__ = ["largest", "progressive_chunked_mmr"]

BLOCK = 512
"""Columns of duplication computed at a time, and rows too where there are that many columns."""

MOST_ROWS = 2048
"""Rows computed at a time where there are few columns."""

PATIENCE = 128
"""Least number of leading candidates whose missed penalties are caught up on together."""

WORTHWHILE = 16384
"""Pairs that cost about what a round of bookkeeping costs: where a chunk is small, more candidates catch up at once."""

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
    The same answer as algorithm 1 run plainly, to the last bit of every score. Memory O(N).
    """
    candidates = _Candidates(scores, duplication, penalty=penalty, floor=floor, exponent=exponent)
    for size in sizes:
        candidates.catch_up(size)
        candidates.move_best(size)
    return namespace(scores).concat(candidates.chunks)


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
        together = max(size, PATIENCE, WORTHWHILE // self.chunks[-1].shape[0])
        while True:
            best = largest(self.scores, min(together, self.scores.shape[0]))
            behind = self.applied < latest
            if not xp.any(behind & (self.scores >= best[size - 1])):
                return
            behind = behind & (self.scores >= best[-1])
            start = int(xp.min(xp.where(behind, self.applied, latest)))
            rows = xp.nonzero(behind & (self.applied == start))[0]
            self._penalise(_padded(rows), start)

    def _penalise(self, rows: Array, start: int) -> None:
        """Apply to the candidates `rows`, ascending, the penalties of the chunks from `start` on that fill a block."""
        xp = self.xp
        stop, width = start + 1, self.chunks[start].shape[0]
        while stop < len(self.chunks) and width + self.chunks[stop].shape[0] <= BLOCK:
            width += self.chunks[stop].shape[0]
            stop += 1
        scores = xp.take(self.scores, rows)
        for shared in self._largest_duplication(xp.take(self.positions, rows), self.chunks[start:stop]):
            duplicated = shared if self.exponent == 2 else xp.sqrt(shared)  # noqa: PLR2004 - the exponent of S
            scores = scores + safe_log(xp.clip(1.0 - self.penalty * duplicated, min=self.floor))
        self.scores = scatter(self.scores, rows, scores)
        self.applied = scatter(self.applied, rows, xp.full_like(rows, stop))

    def _largest_duplication(self, tokens: Array, chunks: list[Array]) -> list[Array]:
        """Return for each chunk the largest duplication of each token with it, equal for identical tokens."""
        xp, twins = self.xp, getattr(self.duplication, "identical", None)
        if twins is None:
            return self._blockwise_largest(tokens, chunks)
        distinct, inverse = xp.unique_inverse(xp.take(twins, tokens))
        return [xp.take(largest, inverse) for largest in self._blockwise_largest(distinct, chunks)]

    def _blockwise_largest(self, tokens: Array, chunks: list[Array]) -> list[Array]:
        xp = self.xp
        ends = list(accumulate(chunk.shape[0] for chunk in chunks))
        members = xp.concat(chunks)
        parts: list[list[Array]] = [[] for _ in chunks]
        for rows in tiles(tokens.shape[0], min(MOST_ROWS, max(BLOCK, BLOCK**2 // members.shape[0]))):
            running: list[Array | None] = [None for _ in chunks]
            for cols in tiles(members.shape[0], BLOCK):
                block = self.duplication(tokens[rows], members[cols])
                for index, (chunk, end) in enumerate(zip(chunks, ends, strict=True)):
                    low, high = max(end - chunk.shape[0], cols.start), min(end, cols.stop)
                    if low < high:
                        largest = xp.max(block[:, low - cols.start : high - cols.start], axis=1)
                        previous = running[index]
                        running[index] = largest if previous is None else xp.maximum(previous, largest)
            for part, largest in zip(parts, running, strict=True):
                part.append(largest)
        return [xp.concat(part) for part in parts]

    def move_best(self, size: int) -> None:
        """Choose the `size` best candidates as the next chunk; their scores must miss no penalty."""
        xp = self.xp
        reach = xp.nonzero(self.scores >= largest(self.scores, size)[-1])[0]
        chosen = xp.take(reach, order_descending(xp.take(self.scores, reach))[:size])
        is_chosen, _ = locate(xp.sort(chosen), self.scores.shape[0])
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
    """Repeat the last position up to a multiple of `ROUND`."""
    xp = namespace(positions)
    missing = -positions.shape[0] % ROUND
    return xp.concat([positions, xp.broadcast_to(positions[-1:], (missing,))])

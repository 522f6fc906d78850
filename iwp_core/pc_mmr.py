"""Progressive chunked MMR (algorithm 1), run lazily, with the answer of algorithm 1 as it is written.

Penalties only lower a score, so a score that misses some of them is an upper bound. A chunk needs exact scores only
for the candidates that such bounds put among its best; most tokens never meet most chunks.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

from iwp_core._arrays import Array, arange_indices, distinct, locate, namespace, order_descending, scatter, take, tiles
from iwp_core._plugins import overridable
from iwp_core.duplication import PairwiseDuplication
from iwp_core.penalties import COPIED, WORTHWHILE, Held, Penalties

__all__ = ["largest", "progressive_chunked_mmr", "ranked_chunked_mmr"]

LEADERS, SPARE = 128, 24
"""The first chunks, up to `LEADERS` tokens in all, are chosen among a pool of the tokens with the largest scores.

The pool has twice as many tokens as are chosen among it, and `SPARE` more. It saves products of the few columns of the
first chunks with all tokens, which are slow.
"""

POOL, WHOLE_POOL = 0.3, 0.5
"""Largest pool as a share of all tokens: where later chunks are chosen without it, and where none are."""

HEAVY = 1 << 19
"""There is a pool if comparing all tokens with one takes at least so many multiplications.

Below that the calls of array operations take longer than the products.
"""

EASY, EASIER = 1 << 26, 1 << 25
"""All tokens meet a chunk at once if that takes at most so many multiplications: finding out who has to takes longer.

`EASIER` is the bound before a chunk of less than half the columns that were missed, for which few tokens count.
"""

ASKED, HOPELESS = 0.25, 0.5
"""Shares of all candidates. Once the first has caught up for a chunk, and the second may still have to, all do."""

PATIENCE = 96
"""At least so many candidates behind the best ones catch up with them, because the next chunk will need them."""


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
        Chunk after chunk, ascending within each.

    Notes
    -----
    The same answer as algorithm 1 run plainly, if `duplication` gives a pair the same number whenever it is asked.
    Memory O(N).
    """
    penalties = Penalties(duplication, scores, penalty=penalty, floor=floor, exponent=exponent)
    return _chunk_by_chunk(_Candidates(scores, penalties), sizes)


def ranked_chunked_mmr(
    scores: Array,
    duplication: PairwiseDuplication,
    sizes: Sequence[int],
    *,
    penalty: float,
    floor: float,
    exponent: int,
) -> Array:
    """Choose as `progressive_chunked_mmr` does; within a chunk the best come first, of equal ones the lower position.

    So the first tokens are those that would be chosen if fewer were asked for: a last chunk that is cut short takes the
    best of the longer one.
    """
    penalties = Penalties(duplication, scores, penalty=penalty, floor=floor, exponent=exponent)
    return _chunk_by_chunk(_Candidates(scores, penalties, ranked=True), sizes)


def _chunk_by_chunk(candidates: "_Candidates", sizes: Sequence[int]) -> Array:
    """Return the tokens of all chunks, one chunk after the other."""
    chosen = candidates.lead(sizes)
    for size in sizes[len(chosen) :]:
        chunk = candidates.choose(size, candidates.catch_up(size))
        if chunk is None:  # all that is left has lost everything: the lowest positions are next
            return candidates.fill(chosen, sum(sizes))
        chosen.append(chunk)
        if len(chosen) < len(sizes):
            candidates.meet([chunk], sizes[len(chosen)])
    return candidates.xp.concat(chosen)


class _Candidates:
    """Tokens with scores that may miss the penalties of late chunks; -inf where chosen."""

    def __init__(self, scores: Array, penalties: Penalties, *, ranked: bool = False) -> None:
        self.xp = namespace(scores)
        self.scores, self.penalties, self.ranked = scores, penalties, ranked
        self.nothing = self.xp.full_like(scores[:1], -math.inf)
        self.least = 0  # chunks whose penalty is in all scores
        self.applied: Array = None  # the same for each candidate, N where no more can come; None: all `least`
        self.futile = False  # whether bounds told so little that the latest chunk asked for most candidates

    def lead(self, sizes: Sequence[int]) -> list[Array]:
        """Choose the first chunks among a pool of the tokens of largest score, which alone meet them on the way.

        That is right as long as the last one chosen scores more than the best of all others, whose scores are bounds.
        """
        xp = self.xp
        count, among = _leading(sizes, self.scores.shape[0], self.penalties.comparison.width)
        if count < 2:  # noqa: PLR2004 - one chunk needs no pool
            return []
        bound = float(largest(self.scores, among + 1)[-1])
        pool = xp.nonzero(self.scores > bound)[0]
        scores, held, chosen = take(self.scores, pool), None, []
        for size in sizes[:count]:
            if pool.shape[0] < size:
                break
            least = float(largest(scores, size)[-1])
            is_best = scores >= least
            best = xp.nonzero(is_best)[0]
            if best.shape[0] > size or not least > bound:
                break
            chosen.append(take(pool, self._in_order(best, scores)))
            if len(chosen) < count:
                held = held or self.penalties.hold(pool)
                scores = scores + next(self.penalties.on([chosen[-1]], held))
                scores = xp.where(is_best, self.nothing, scores)
        if len(chosen) < len(sizes) and chosen:
            taken = xp.sort(xp.concat(chosen))
            self.scores = scatter(self.scores, taken, xp.broadcast_to(self.nothing, taken.shape))
            self.meet(chosen, sizes[len(chosen)])
        return chosen

    def meet(self, chunks: Sequence[Array], size: int) -> None:
        """Apply the penalties of chunks if that is easy before the next one, of `size`; else note who misses them."""
        penalties = self.penalties
        up_to_date = self.applied is None and self.least == penalties.count
        if up_to_date and self._is_easy(sum(chunk.shape[0] for chunk in chunks), size):
            for logs in penalties.on(chunks, penalties.everyone):
                self.scores = self.scores + logs
        else:
            penalties.add(chunks)

    def _is_easy(self, columns: int, size: int) -> bool:
        """Return whether all tokens meet so many columns sooner than one finds out which have to for the next chunk."""
        return self.penalties.cost(self.scores.shape[0], columns) <= (EASY if columns <= 2 * size else EASIER)

    def catch_up(self, size: int) -> float:
        """Apply missed penalties until the `size` best scores miss none; return the last one of these."""
        xp, latest, total = self.xp, self.penalties.count, self.scores.shape[0]
        if self.applied is None and self.least == latest:
            return float(largest(self.scores, size)[-1])
        is_easy = self._is_easy(self.penalties.missed(self.least), size)
        if is_easy or self.futile:
            if is_easy or self.applied is None:
                self.scores = self._lowered(self.scores, self.applied, self.penalties.everyone, self.least)
            else:
                self._penalise(self.applied < latest)
            self.least, self.applied = latest, None
            return float(largest(self.scores, size)[-1])
        self.applied = self._marked(self.scores == self.nothing, total)
        some, bar = min(total, size + max(size // 2, PATIENCE)), -math.inf
        asked = 0
        while True:
            ranked = largest(self.scores, some)
            behind = self.applied < latest
            if not xp.any(behind & (self.scores >= ranked[size - 1])):
                self.futile = asked > WORTHWHILE * total
                return float(ranked[size - 1])
            # The `size` best will be no worse than those whose scores are exact, but may be much better.
            bar = max(bar, float(ranked[-1]))
            asked += self._penalise(behind & (self.scores >= bar))
            bar = float(largest(xp.where(self.applied == latest, self.scores, self.nothing), size)[-1])
            some = min(total, 2 * some)
            if asked > ASKED * total and self._misses(latest, bar) > HOPELESS * total:
                some = total

    def _misses(self, latest: int, bar: float) -> int:
        """Return how many candidates miss penalties and score at least `bar`."""
        return int(self.xp.count_nonzero((self.applied < latest) & (self.scores >= bar)))

    def _penalise(self, some: Array) -> int:
        """Apply the penalties that candidates miss where `some`, of shape (N,), is true; return how many they are."""
        xp = self.xp
        rows = xp.nonzero(some)[0]
        if rows.shape[0] == 0:
            return 0
        applied = take(self.applied, rows)
        least = int(xp.min(applied))
        if self.penalties.cost(rows.shape[0], self.penalties.missed(least)) <= EASY:
            self._lower(some, rows, least)
        else:
            for start in [int(start) for start in distinct(applied)]:
                self._lower(some & (self.applied == start), take(rows, xp.nonzero(applied == start)[0]), start)
        self.applied = self._marked(some, self.penalties.count)
        return int(rows.shape[0])

    def _lower(self, where: Array, rows: Array, start: int) -> None:
        """Apply the penalties of the chunks from `start` on that the candidates `rows`, those `where`, miss."""
        xp, penalties = self.xp, self.penalties
        if rows.shape[0] > WORTHWHILE * self.scores.shape[0]:  # compare all in place, rather than copy most
            scores = self._lowered(self.scores, self.applied, penalties.everyone, start)
            self.scores = xp.where(where, scores, self.scores)
            return
        for tile in tiles(rows.shape[0], COPIED):
            some = rows[tile]
            held = penalties.hold(some)
            scores = self._lowered(take(self.scores, some), take(self.applied, some), held, start)
            self.scores = scatter(self.scores, some, scores)

    def _lowered(self, scores: Array, applied: Array | None, held: Held, start: int) -> Array:
        """Return the scores of tokens with the penalties from `start` on that they miss: all of these for None."""
        xp = self.xp
        for chunk, logs in enumerate(self.penalties.log_factors(held, start), start):
            scores = scores + (logs if applied is None else xp.where(applied <= chunk, logs, xp.zeros_like(logs)))
        return scores

    def _marked(self, where: Array, chunks: int) -> Array:
        """Return `applied` with another number of chunks at some places."""
        xp, applied = self.xp, self.applied
        if applied is None:
            applied = xp.full_like(self.penalties.positions, self.least)
        return xp.where(where, chunks, applied)

    def choose(self, size: int, least: float) -> Array | None:
        """Take out and return the `size` best candidates, the last of which scores `least`; None if all have lost.

        Their scores must miss no penalty.
        """
        xp = self.xp
        if not least > -math.inf:
            return None
        is_best = self.scores >= least
        best = xp.nonzero(is_best)[0]
        if best.shape[0] < size:  # scores that are no numbers, which only data that nobody validated give
            return None
        if best.shape[0] > size:  # of those that tie with the last one the first are taken
            best = xp.sort(take(best, order_descending(take(self.scores, best))[:size]))
            is_best, _ = locate(best, arange_indices(self.scores.shape[0], best))
        best = self._in_order(best, self.scores)
        self.scores = xp.where(is_best, self.nothing, self.scores)
        return best

    def _in_order(self, chosen: Array, scores: Array) -> Array:
        """Return ascending indices of a chunk, or in descending order of scores if they are to be ranked."""
        if not self.ranked:
            return chosen
        return take(chosen, order_descending(take(scores, chosen)))

    def fill(self, chosen: list[Array], count: int) -> Array:
        """Return `count` tokens: the chosen ones, those that have not lost everything, and the first of the others."""
        xp = self.xp
        rest = self._in_order(xp.nonzero(self.scores > self.nothing)[0], self.scores)
        better = xp.concat([*chosen, rest])
        is_better, _ = locate(xp.sort(better), self.penalties.positions)
        return xp.concat([better, xp.nonzero(~is_better)[0]])[:count]


def _leading(sizes: Sequence[int], total: int, width: int) -> tuple[int, int]:
    """Return how many chunks are chosen among a pool, and its size."""
    count = among = 0
    if total * width < HEAVY:
        return count, among
    for index, end in enumerate(accumulate(sizes), 1):
        pool = 2 * end + SPARE
        if end > LEADERS or pool >= total:
            break
        if pool <= (WHOLE_POOL if index == len(sizes) else POOL) * total:
            count, among = index, pool
    return count, among


@overridable
def largest(scores: Array, count: int) -> Array:
    """Return the `count` largest entries of a vector, in descending order."""
    xp = namespace(scores)
    return xp.flip(xp.sort(scores, stable=False)[scores.shape[0] - count :])

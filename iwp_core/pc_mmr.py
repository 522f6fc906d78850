"""Progressive chunked MMR (algorithm 1): as it is written for few tokens, lazily for many, with the same answer.

Penalties only lower a score, so a score that misses some of them is an upper bound. A chunk needs exact scores only
for the candidates that such bounds put among its best; most tokens never meet most chunks. With few tokens that
bookkeeping costs more than it saves.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

from iwp_core._arrays import Array, arange_indices, locate, namespace, order_descending, scatter
from iwp_core._plugins import overridable
from iwp_core.duplication import PairwiseDuplication
from iwp_core.penalties import WORTHWHILE, Held, Penalties

__all__ = ["largest", "progressive_chunked_mmr", "ranked_chunked_mmr"]

FEW, MANY = 1024, 4096
"""Tokens up to which every candidate is compared with every chunk, and from which on bounds are always followed.

Between them bounds are followed until a chunk asks for too many candidates: then they tell little, and cost more.
"""

MOST = 0.25
"""That share of the candidates."""

LEADERS, POOLED = 128, 768
"""Tokens that are chosen, at most, from a pool whose tokens are compared with each other at once; of how many."""

SPARE, CHEAP = 32, 0.4
"""Tokens in a pool beside those that are chosen of it; its pairs, at most, as a share of those of the plain loop."""

PATIENCE = 96
"""Least number of candidates behind the best ones that catch up with them: the next chunk will ask for them."""


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
        candidates.catch_up(size)
        chunk = candidates.choose(size)
        if chunk is None:  # all that is left has lost everything: the lowest positions are next
            return candidates.fill(chosen, sum(sizes))
        chosen.append(chunk)
        if len(chosen) < len(sizes):
            candidates.penalties.add([chunk])
    return candidates.xp.concat(chosen)


class _Candidates:
    """Tokens with scores that may miss the penalties of late chunks, in ascending position; -inf where chosen."""

    def __init__(self, scores: Array, penalties: Penalties, *, ranked: bool = False) -> None:
        self.xp = namespace(scores)
        self.scores, self.penalties, self.ranked = scores, penalties, ranked
        self.positions = penalties.positions
        self.nothing = self.xp.full_like(scores[:1], -math.inf)
        self.left = scores.shape[0]
        self.lazy = self.left > FEW
        self.applied = self.xp.zeros_like(self.positions)  # chunks whose penalty is in each score
        self.evenly: int | None = 0  # the same, where it is one number for all; `applied` is read where it is not
        self.held: Held | None = None  # all candidates, once bounds are followed no more

    def lead(self, sizes: Sequence[int]) -> list[Array]:
        """Choose the first chunks among the tokens of largest score, which are all compared with each other at once.

        That is right as long as the last one chosen scores more than the best of all others, whose scores are bounds.
        """
        xp = self.xp
        count, among = _leading(sizes, self.left)
        if count < 2:  # noqa: PLR2004 - one chunk needs no comparison
            return []
        bound = largest(self.scores, among + 1)[-1]
        pool = xp.nonzero(self.scores > bound)[0]
        scores, chosen = xp.take(self.scores, pool), []
        shared = self.penalties.among(pool) if pool.shape[0] >= sizes[0] else None
        for size in sizes[:count]:
            if shared is None or scores.shape[0] < size:
                break
            least = largest(scores, size)[-1]
            is_best = scores >= least
            best = xp.nonzero(is_best)[0]
            if best.shape[0] > size or not least > bound:
                break
            chosen.append(self._in_order(best, scores))
            scores = xp.where(is_best, self.nothing, scores + shared.log_factors(best))
        return self._settle(pool, scores, [xp.take(pool, best) for best in chosen])

    def _settle(self, pool: Array, scores: Array, chosen: list[Array]) -> list[Array]:
        """Take over what was chosen among the tokens of `pool`, and their scores."""
        if chosen:
            self.penalties.add(chosen)
            self.left -= sum(chunk.shape[0] for chunk in chosen)
            self.scores = scatter(self.scores, pool, scores)
            self.applied = scatter(self.applied, pool, self.xp.full_like(pool, len(chosen)))
            self.evenly = None
        return chosen

    def catch_up(self, size: int) -> None:
        """Apply missed penalties until the `size` best scores miss none."""
        xp, latest = self.xp, self.penalties.count
        if latest == 0:
            return
        if not self.lazy:
            self._penalise_everyone()
            return
        asked, some = 0, size + max(size // 2, PATIENCE)
        bar = largest(self.scores, min(self.scores.shape[0], some))[-1]
        while True:
            behind = (self.applied < latest) & (self.scores > self.nothing)
            if not xp.any(behind & (self.scores >= largest(self.scores, size)[-1])):
                return
            rows = xp.nonzero(behind & (self.scores >= bar))[0]
            self._penalise(rows)
            asked += rows.shape[0]
            if asked > MOST * self.left and self.scores.shape[0] < MANY:
                self.lazy = False
                self._penalise_everyone()
                return
            # The `size` best will be no worse than those whose scores are exact, but may be much better.
            exact = largest(xp.where(self.applied == latest, self.scores, self.nothing), size)[-1]
            some *= 2
            stale = xp.where(self.applied < latest, self.scores, self.nothing)
            bar = xp.maximum(exact, largest(stale, min(stale.shape[0], some))[-1])

    def _penalise(self, rows: Array) -> None:
        """Apply the penalties that the candidates `rows`, ascending, miss."""
        xp = self.xp
        applied = xp.take(self.applied, rows)
        for start in [int(start) for start in xp.unique_values(applied)]:
            group = xp.take(rows, xp.nonzero(applied == start)[0])
            scores = xp.take(self.scores, group)
            held = self.penalties.hold(xp.take(self.positions, group))
            for _, logs in self.penalties.log_factors(held, start):
                scores = scores + logs
            self.scores = scatter(self.scores, group, scores)
        self.applied = scatter(self.applied, rows, xp.full_like(rows, self.penalties.count))
        self.evenly = None

    def _penalise_everyone(self) -> None:
        """Apply the penalties that any candidate misses."""
        xp, latest = self.xp, self.penalties.count
        if self.evenly is None:
            self._penalise(xp.nonzero((self.applied < latest) & (self.scores > self.nothing))[0])
        else:
            if self.left < WORTHWHILE * self.scores.shape[0]:  # go on with those that are left only
                rest = xp.nonzero(self.scores > self.nothing)[0]
                self.positions, self.scores = xp.take(self.positions, rest), xp.take(self.scores, rest)
                self.held = None
            if self.scores.shape[0] > 0:
                self.held = self.held or self.penalties.hold(self.positions)
                for _, logs in self.penalties.log_factors(self.held, self.evenly):
                    self.scores = self.scores + logs
        self.evenly = latest

    def choose(self, size: int) -> Array | None:
        """Take out and return the `size` best candidates, whose scores must miss no penalty; None if all have lost."""
        xp = self.xp
        if size > self.scores.shape[0]:
            return None
        least = largest(self.scores, size)[-1]
        if not least > -math.inf:
            return None
        is_best = self.scores >= least
        best = xp.nonzero(is_best)[0]
        if best.shape[0] < size:  # scores that are no numbers, which only data that nobody validated give
            return None
        if best.shape[0] > size:  # of those that tie with the last one the first are taken
            best = xp.sort(xp.take(best, order_descending(xp.take(self.scores, best))[:size]))
            is_best, _ = locate(best, arange_indices(self.scores.shape[0], best))
        best = self._in_order(best, self.scores)
        self.scores = xp.where(is_best, self.nothing, self.scores)
        self.left -= size
        return xp.take(self.positions, best)

    def _in_order(self, chosen: Array, scores: Array) -> Array:
        """Return ascending indices of a chunk, or in descending order of scores if they are to be ranked."""
        if not self.ranked:
            return chosen
        return self.xp.take(chosen, order_descending(self.xp.take(scores, chosen)))

    def fill(self, chosen: list[Array], count: int) -> Array:
        """Return `count` tokens: the chosen ones, those that have not lost everything, and the first of the others."""
        xp, everyone = self.xp, self.penalties.positions
        rest = self._in_order(xp.nonzero(self.scores > self.nothing)[0], self.scores)
        better = xp.concat([*chosen, xp.take(self.positions, rest)])
        is_better, _ = locate(xp.sort(better), everyone)
        return xp.concat([better, xp.nonzero(~is_better)[0]])[:count]


def _leading(sizes: Sequence[int], total: int) -> tuple[int, int]:
    """Return how many chunks are chosen among a pool, and its size: as many as cost few pairs beside the plain loop."""
    count = among = 0
    if total < POOLED:
        return count, among
    for index, end in enumerate(accumulate(sizes), 1):
        pool = 3 * end // 2 + SPARE
        if end > LEADERS or pool >= total:
            break
        if pool * pool <= CHEAP * total * end:
            count, among = index, pool
    return count, among


@overridable
def largest(scores: Array, count: int) -> Array:
    """Return the `count` largest entries of a vector, in descending order."""
    return namespace(scores).sort(scores, descending=True, stable=False)[:count]

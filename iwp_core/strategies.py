"""How tokens are chosen from magnitude and duplication: PC-MMR (algorithm 1), greedy MMR (section 4.3), top-K."""

import math
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral, Real
from typing import Protocol, runtime_checkable

from iwp_core._arrays import Array, arange_indices, locate, namespace, order_descending, safe_log, scatter, tiles
from iwp_core._plugins import overridable

__all__ = ["MMR", "PCMMR", "PairwiseDuplication", "Strategy", "TopK", "progressive_chunked_mmr"]

BLOCK = 512
"""Rows and columns of duplication computed at a time."""

PATIENCE = 128
"""Least number of leading candidates whose missed penalties are caught up on together."""


ROUND = 64
"""Candidates catch up in multiples of this many: few shapes, for libraries that compile each one anew."""


class PairwiseDuplication(Protocol):
    """Information duplication of one sample, as strategies see it; `Duplication` is the one `select_tokens` passes."""

    def __call__(self, rows: Array, cols: Array, /) -> Array:
        """Return the duplication of tokens `rows` (R,) with tokens `cols` (C,), shape (R, C), in [0, 1]."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A rule that chooses tokens; anything with such a `select` can be passed to `select_tokens`.

    Examples
    --------
    >>> import numpy as np
    >>> from iwp_core import select_tokens
    >>> class EveryOther:
    ...     def select(self, log_magnitude, duplication, count):
    ...         return np.arange(count) * 2
    >>> x = np.ones((6, 2))
    >>> select_tokens(x, x, x[0], 3, strategy=EveryOther())
    array([0, 2, 4])
    """

    def select(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Choose tokens of one sample.

        Parameters
        ----------
        log_magnitude : array, shape (N,)
            Natural logarithm of the information magnitude, from -inf to 0: the magnitude itself leaves the
            range of float32 where query-key products reach the hundreds.
        duplication : callable
            ``duplication(rows, cols)`` returns an (R, C) block of the duplication in [0, 1].
        count : int
            Tokens to choose, 1 <= M <= N.

        Returns
        -------
        array of int, shape (M,)
            Distinct positions, in any order.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Keep the tokens of largest magnitude; duplication is not looked at. Ties: lower position first.

    Examples
    --------
    >>> import numpy as np
    >>> TopK().select(np.asarray([-1.0, 0.0, -0.5]), None, 2)
    array([1, 2])
    """

    def select(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:  # noqa: ARG002 - the protocol's
        """Choose tokens of one sample; see `Strategy.select`."""
        return order_descending(log_magnitude)[:count]


@dataclass(frozen=True, kw_only=True)
class MMR:
    """Greedy maximal marginal relevance, one token a step (section 4.3).

    Parameters
    ----------
    tradeoff : float, default 0.5
        Weight in [0, 1] of the magnitude; the largest duplication with a chosen token weighs 1 - `tradeoff`.

    Raises
    ------
    TypeError, ValueError
        If `tradeoff` is no real number, or outside [0, 1].

    Notes
    -----
    The first token is the one of largest magnitude. M steps, each over all N tokens: the cost that PC-MMR avoids.

    Examples
    --------
    >>> import numpy as np
    >>> table = np.asarray([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> MMR().select(np.log([1.0, 0.9, 0.5]), lambda rows, cols: table[np.ix_(rows, cols)], 2)
    array([0, 2])
    """

    tradeoff: float = 0.5

    def __post_init__(self) -> None:
        _check_number("tradeoff", self.tradeoff, 0.0, 1.0)

    def select(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Choose tokens of one sample; see `Strategy.select`."""
        xp = namespace(log_magnitude)
        everyone = arange_indices(log_magnitude.shape[0], log_magnitude)
        twins = getattr(duplication, "identical", None)
        relevance = self.tradeoff * xp.exp(log_magnitude)
        shared = xp.zeros_like(relevance)
        chosen: list[Array] = []
        is_chosen = everyone < 0
        for _ in range(count):
            if chosen:
                latest = xp.concat([duplication(everyone[rows], chosen[-1]) for rows in tiles(everyone.shape[0])])[:, 0]
                shared = xp.maximum(shared, latest if twins is None else xp.take(latest, twins))
            score = xp.where(is_chosen, xp.full_like(relevance, -xp.inf), relevance - (1.0 - self.tradeoff) * shared)
            best = xp.min(everyone[score == xp.max(score)])
            chosen.append(xp.reshape(best, (1,)))
            is_chosen = is_chosen | (everyone == best)
        return xp.concat(chosen)


@dataclass(frozen=True, kw_only=True)
class PCMMR:
    """Progressive chunked MMR (algorithm 1): take the best chunk, penalise what duplicates it, grow the chunk.

    Parameters
    ----------
    chunk : int, default 2
        Size b of the first chunk, at least 1.
    growth : float, default 2.0
        Factor g >= 1 from one chunk's size to the next.
    penalty : float, default 5.0
        Strength lambda >= 0: a chunk multiplies the magnitude of a remaining token by
        max(`floor`, 1 - lambda * s), s its largest duplication with a token of the chunk.
    floor : float, default 0.01
        Least factor of one chunk, in [0, 1].
    exponent : {2, 1}, default 2
        2 penalises by the head-mean of the squared similarity (the paper), 1 by its square root (ours).
    temper : float, default 1.0
        Power >= 0 to which the magnitude is raised first; 1 is the paper's, 0 looks at duplication only.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number of its kind, or outside its range.

    Notes
    -----
    Runs lazily and exactly: penalties only lower a score, so a score that misses some is an upper bound, and only
    candidates that such a bound puts among the best have to catch up. Scores are logarithms. Ties: lower position
    first. Memory O(N).

    Examples
    --------
    >>> import numpy as np
    >>> table = np.asarray([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> PCMMR(chunk=1).select(np.log([1.0, 0.9, 0.5]), lambda rows, cols: table[np.ix_(rows, cols)], 2)
    array([0, 2])
    """

    chunk: int = 2
    growth: float = 2.0
    penalty: float = 5.0
    floor: float = 0.01
    exponent: int = 2
    temper: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.chunk, bool) or not isinstance(self.chunk, Integral):
            msg = f"`chunk` is {self.chunk!r} of type {type(self.chunk).__name__}, expected an int >= 1"
            raise TypeError(msg)
        _check_number("chunk", self.chunk, 1, math.inf)
        _check_number("growth", self.growth, 1.0, math.inf)
        _check_number("penalty", self.penalty, 0.0, math.inf)
        _check_number("floor", self.floor, 0.0, 1.0)
        _check_number("temper", self.temper, 0.0, math.inf)
        if self.exponent not in (1, 2):
            msg = f"`exponent` is {self.exponent!r}, expected 2 (the paper's) or 1"
            raise ValueError(msg)

    def select(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Choose tokens of one sample; see `Strategy.select`."""
        return progressive_chunked_mmr(log_magnitude, duplication, count, self)

    def chunk_sizes(self, count: int) -> list[int]:
        """Return the sizes of the chunks that together choose `count` tokens.

        Examples
        --------
        >>> PCMMR().chunk_sizes(17)
        [2, 4, 8, 3]
        """
        sizes: list[int] = []
        size, left = float(self.chunk), count
        while left > 0:
            sizes.append(min(math.floor(size), left))
            left -= sizes[-1]
            size = min(size * self.growth, float(count))
        return sizes


def _check_number(name: str, value: object, least: float, most: float) -> None:
    """Raise unless `value` is a finite real number from `least` to `most`."""
    allowed = f"expected a finite number >= {least:g}" if most == math.inf else f"expected a number in [{least:g}, {most:g}]"
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}, {allowed}"
        raise TypeError(msg)
    if not (least <= float(value) <= most and math.isfinite(value)):
        msg = f"`{name}` is {value!r}, {allowed}"
        raise ValueError(msg)


@overridable
def progressive_chunked_mmr(
    log_magnitude: Array, duplication: PairwiseDuplication, count: int, options: PCMMR
) -> Array:
    """Run algorithm 1 lazily; parameters and result as `Strategy.select`, with the `options` of PC-MMR."""
    xp = namespace(log_magnitude)
    candidates = _Candidates(log_magnitude, duplication, options)
    for size in options.chunk_sizes(count):
        candidates.catch_up(size)
        candidates.move_best(size)
    return xp.concat(candidates.chunks)


class _Candidates:
    """The tokens not chosen yet, with scores that may miss the penalties of late chunks, in ascending position."""

    def __init__(self, log_magnitude: Array, duplication: PairwiseDuplication, options: PCMMR) -> None:
        xp = namespace(log_magnitude)
        self.xp, self.duplication, self.options = xp, duplication, options
        self.positions = arange_indices(log_magnitude.shape[0], log_magnitude)
        self.scores = options.temper * log_magnitude if options.temper > 0 else xp.zeros_like(log_magnitude)
        self.applied = xp.zeros_like(self.positions)  # chunks whose penalty is in the score
        self.chunks: list[Array] = []

    def catch_up(self, size: int) -> None:
        """Apply missed penalties until the `size` best scores miss none."""
        xp, latest = self.xp, len(self.chunks)
        count = self.scores.shape[0]
        while True:
            best = largest(self.scores, min(max(size, PATIENCE), count))
            behind = self.applied < latest
            if not xp.any(behind & (self.scores >= best[size - 1])):
                return
            behind = behind & (self.scores >= best[-1])
            start = int(xp.min(xp.where(behind, self.applied, latest)))
            rows = xp.nonzero(behind & (self.applied == start))[0]
            self._penalise(_padded(rows), start)

    def _penalise(self, rows: Array, start: int) -> None:
        """Apply to the candidates `rows`, ascending, the penalties of the chunks from `start` on that fill a block."""
        xp, options = self.xp, self.options
        stop, width = start + 1, self.chunks[start].shape[0]
        while stop < len(self.chunks) and width + self.chunks[stop].shape[0] <= BLOCK:
            width += self.chunks[stop].shape[0]
            stop += 1
        scores = xp.take(self.scores, rows)
        for shared in self._largest_duplication(xp.take(self.positions, rows), self.chunks[start:stop]):
            duplicated = shared if options.exponent == 2 else xp.sqrt(shared)  # noqa: PLR2004 - the exponent of S
            scores = scores + safe_log(xp.clip(1.0 - options.penalty * duplicated, min=options.floor))
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
        for rows in tiles(tokens.shape[0], BLOCK):
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

"""What chunks of chosen tokens take from the scores of others: factors of PC-MMR (algorithm 1), computed in tiles."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

from iwp_core._arrays import Array, arange_indices, distinct, joined, namespace, safe_log, scatter, take, tiles
from iwp_core.comparison import Duplication, Gathered
from iwp_core.duplication import PairwiseDuplication

__all__ = ["COPIED", "TOGETHER", "WORTHWHILE", "Held", "Penalties"]

PAIRS = 1 << 17
"""Pairs of tokens compared at a time, so that their block stays in the processor's cache."""

LEAST_ROWS = 64
"""Rows of such a block, at least."""

COPIED = 4096
"""Tokens copied at a time to be compared, so that memory stays below that of the inputs."""

TOGETHER = 64
"""Small chunks of up to so many columns in all are compared in one product, since products of few columns are slow."""

FIRST, MOST = 32, 256
"""Columns of a large chunk that are compared before tokens at the least factor are left out: at first, and later."""

TELLING = 5
"""A chunk of fewer columns is not asked whether it brought all tokens to the least factor (see `ONCE`)."""

ONCE = 4
"""Columns compared first in place of `FIRST`, after a chunk whose first columns brought all tokens to the least factor.

Then nearly all tokens are the same, and few columns are enough again.
"""

TRIFLE = 1 << 23
"""A chunk of at most so many multiplications is compared whole: leaving tokens out would take longer than it saves."""

WIDE = 1024
"""Multiplications that a pair takes, for a duplication that does not tell: those of 4 heads of 128, keys and values."""

WORTHWHILE = 0.8
"""Tokens are left out, which copies the others, if at most this share of them is left."""


class _Comparison(Protocol):
    """What is asked of a duplication: tokens as rows and as columns, and a block (C, R) of both.

    In that order maxima over columns run along the longer axis, which is faster.
    """

    @property
    def identical(self) -> Array | None: ...

    @property
    def everyone(self) -> Gathered: ...

    @property
    def width(self) -> int: ...

    def as_columns(self, rows: Gathered, /) -> Gathered: ...

    def compare(self, columns: Gathered, rows: Gathered, /) -> Array: ...


class _Asked:
    """The same of any callable that gives the duplication of pairs; what is gathered are positions."""

    def __init__(self, duplication: PairwiseDuplication, positions: Array) -> None:
        self.duplication = duplication
        self.identical: Array | None = getattr(duplication, "identical", None)
        self.everyone = Gathered((positions[None, :],))
        self.width = WIDE

    def as_columns(self, rows: Gathered) -> Gathered:
        return rows

    def compare(self, columns: Gathered, rows: Gathered) -> Array:
        block: Array = self.duplication(rows.parts[0][0, :], columns.parts[0][0, :])
        return namespace(block).matrix_transpose(block)


@dataclass(frozen=True)
class _Block:
    """Columns of consecutive chunks that are compared together."""

    first: int
    columns: Gathered
    ends: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The chunk after the last one."""
        return self.first + len(self.ends)

    def missed(self, start: int) -> int:
        """Return how many columns are those of chunks from `start` on."""
        done = start - self.first
        return self.ends[-1] - (self.ends[done - 1] if done > 0 else 0)

    def since(self, start: int) -> "_Block":
        """Return the block without the chunks before `start`."""
        done = start - self.first
        if done <= 0:
            return self
        begin = self.ends[done - 1]
        ends = tuple(end - begin for end in self.ends[done:])
        return _Block(start, self.columns.cut(slice(begin, self.ends[-1])), ends)


class Penalties:
    """The chunks chosen so far, and the logs of the factors that they put on the magnitudes of other tokens.

    Identical tokens get identical factors: only the first of them is compared, and only once within a chunk.
    """

    def __init__(
        self, duplication: PairwiseDuplication, like: Array, *, penalty: float, floor: float, exponent: int
    ) -> None:
        xp = namespace(like)
        self._like = like
        self.comparison: _Comparison = (
            duplication if isinstance(duplication, Duplication) else _Asked(duplication, self.positions)
        )
        self.penalty, self.exponent = penalty, exponent
        self.floor = xp.full_like(like[:1], floor)
        self.log: Callable[[Array], Array] = xp.log if floor > 0 else safe_log
        self.least = self.log(self.floor)
        self.blocks: list[_Block] = []
        self.twins = self.comparison.identical
        self.first = FIRST

    @cached_property
    def positions(self) -> Array:
        """Positions of all tokens, shape (N,)."""
        return arange_indices(self._like.shape[0], self._like)

    @property
    def count(self) -> int:
        """How many chunks were chosen."""
        return self.blocks[-1].stop if self.blocks else 0

    def cost(self, rows: int, columns: int) -> int:
        """Return how many multiplications it takes to compare so many tokens with so many others."""
        return rows * columns * self.comparison.width

    def missed(self, start: int) -> int:
        """Return how many columns the chunks from `start` on have."""
        return sum(block.missed(start) for block in self.blocks if block.stop > start)

    def add(self, chunks: Sequence[Array]) -> None:
        """Take note of chunks that were chosen."""
        block = self._block(chunks)
        if self.blocks and self.blocks[-1].columns.count + block.columns.count <= TOGETHER:
            last = self.blocks.pop()
            ends = (*last.ends, *(last.ends[-1] + end for end in block.ends))
            block = _Block(last.first, Gathered.join([last.columns, block.columns]), ends)
        self.blocks.append(block)

    def on(self, chunks: Sequence[Array], held: "Held") -> Iterator[Array]:
        """Yield for each of some chunks, which need not be added, the logs of its factors on the tokens held (R,)."""
        return self._of_block(self._block(chunks), held)

    def _block(self, chunks: Sequence[Array]) -> _Block:
        """Return chunks as columns that come after those that were added."""
        chunks = [self._spread_out(chunk) for chunk in chunks]
        columns = self.comparison.as_columns(self.comparison.everyone.take(joined(chunks)))
        return _Block(self.count, columns, tuple(accumulate(chunk.shape[0] for chunk in chunks)))

    def _spread_out(self, chunk: Array) -> Array:
        """Return a chunk with identical tokens once; the first ones stand for all of a large chunk."""
        tokens = chunk if self.twins is None else distinct(take(self.twins, chunk))
        step = tokens.shape[0] // FIRST
        return joined([tokens[start::step] for start in range(step)]) if step > 1 else tokens

    @cached_property
    def everyone(self) -> "Held":
        """All tokens ready to be compared: in place, or, where some of few are identical, a copy of the others."""
        if self.twins is not None and self.twins.shape[0] <= COPIED:
            return self.hold(self.positions)
        return Held(self.comparison.everyone, self.twins)

    def hold(self, positions: Array) -> "Held":
        """Make some tokens ready to be compared: copy them."""
        inverse = None
        if self.twins is not None:
            firsts = take(self.twins, positions)
            positions = distinct(firsts)
            inverse = namespace(positions).searchsorted(positions, firsts)
        return Held(self.comparison.everyone.take(positions), inverse)

    def log_factors(self, held: "Held", start: int) -> Iterator[Array]:
        """Yield for each chunk from `start` on the logs of its factors on the tokens held, shape (R,)."""
        for block in self.blocks:
            if block.stop > start:
                yield from self._of_block(block.since(start), held)

    def _of_block(self, block: _Block, held: "Held") -> Iterator[Array]:
        """Yield for each chunk of a block the logs of its factors on the tokens held, shape (R,)."""
        of_chunks = self._of_columns if len(block.ends) > 1 else self._of_one
        logs = of_chunks(held.rows, block.columns, block.ends)
        for index in range(len(block.ends)):
            yield _spread(logs[index, :], held.inverse)

    def _of_one(self, rows: Gathered, chunk: Gathered, _ends: Sequence[int]) -> Array:
        """Return the logs of the factors of a chunk, leaving out on the way tokens whose factor can fall no further."""
        if self.cost(rows.count, chunk.count) <= TRIFLE:
            return self._of_columns(rows, chunk, (chunk.count,))
        xp = namespace(self.floor)
        logs: Array = None
        open_rows: Array | None = None
        done, width = 0, chunk.count if self.first == FIRST and chunk.count <= TOGETHER else self.first
        while done < chunk.count:
            columns = chunk.cut(slice(done, min(done + width, chunk.count)))
            latest = self._of_columns(rows, columns, (columns.count,))[0, :]
            done, width = done + columns.count, MOST
            if logs is None:
                logs = latest
            elif open_rows is None:
                logs = latest = xp.minimum(logs, latest)
            else:
                latest = xp.minimum(take(logs, open_rows), latest)
                logs = scatter(logs, open_rows, latest)
            if done == chunk.count < TELLING:
                break
            above = xp.nonzero(latest > self.least)[0]
            if columns.count == done:
                self.first = FIRST if above.shape[0] > 0 else ONCE
            if above.shape[0] == 0:
                break
            if above.shape[0] < WORTHWHILE * rows.count:
                rows, open_rows = rows.take(above), above if open_rows is None else take(open_rows, above)
        return logs[None, :]

    def _of_columns(self, rows: Gathered, columns: Gathered, ends: Sequence[int]) -> Array:
        """Return the logs of the factors of groups of consecutive columns, shape (G, R)."""
        xp, parts = namespace(self.floor), []
        if len(ends) == 1 and rows.count * columns.count <= PAIRS:
            return self._log_factor(xp.max(self.comparison.compare(columns, rows), axis=0, keepdims=True))
        for tile in _tiles(rows, columns):
            shared = self.comparison.compare(columns, rows.cut(tile))
            cuts = zip((0, *ends[:-1]), ends, strict=True)
            parts.append(joined([xp.max(shared[begin:end, :], axis=0, keepdims=True) for begin, end in cuts]))
        return self._log_factor(joined(parts, axis=1))

    def _log_factor(self, shared: Array) -> Array:
        """Return the log of max(floor, 1 - penalty * s) for largest duplications s, or for their roots."""
        xp = namespace(shared)
        s = shared if self.exponent == 2 else xp.sqrt(shared)  # noqa: PLR2004 - the exponent of S
        return self.log(xp.maximum(-self.penalty * s + 1.0, self.floor))


@dataclass(frozen=True)
class Held:
    """Tokens ready to be compared, and where each finds its row: identical ones in the row of the first of them."""

    rows: Gathered
    inverse: Array | None


def _spread(x: Array, inverse: Array | None) -> Array:
    """Return one entry a token from one entry a distinct token."""
    return x if inverse is None else take(x, inverse)


def _tiles(rows: Gathered, columns: Gathered) -> list[slice]:
    return list(tiles(rows.count, max(LEAST_ROWS, PAIRS // columns.count)))

"""How tokens are chosen from magnitude and duplication: PC-MMR (algorithm 1), greedy MMR (section 4.3), top-K."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

from iwp_core._arrays import Array, arange_indices, namespace, order_descending, tiles
from iwp_core.duplication import PairwiseDuplication
from iwp_core.pc_mmr import progressive_chunked_mmr, ranked_chunked_mmr

__all__ = ["MMR", "PCMMR", "OrderedStrategy", "Strategy", "TopK"]


@runtime_checkable
class Strategy(Protocol):
    """A rule that chooses tokens; any object with this method `select` can be passed to `select_tokens`.

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
            Natural logarithm of the information magnitude, from -inf to 0. The magnitude itself would underflow in
            float32 where query-key products reach the hundreds.
        duplication : callable
            ``duplication(rows, cols)`` returns the duplication of R tokens with C tokens, shape (R, C), in [0, 1].
        count : int
            Number of tokens to choose, 1 <= M <= N.

        Returns
        -------
        array of int, shape (M,)
            Distinct positions, in any order.
        """
        ...


@runtime_checkable
class OrderedStrategy(Strategy, Protocol):
    """A strategy with nested choices, which a `Tolerance` needs: a smaller choice is the beginning of a larger one."""

    def order(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Return positions, shape (count,), in the order of choice: the first M are what `select` returns for M."""
        ...


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Keep the tokens of largest magnitude, whatever their duplication. Of equal ones, the lower index is taken.

    Examples
    --------
    >>> import numpy as np
    >>> TopK().select(np.asarray([-1.0, 0.0, -0.5]), None, 2)
    array([1, 2])
    """

    def select(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:  # noqa: ARG002 - the protocol's
        """Choose tokens of one sample; see `Strategy.select`."""
        return order_descending(log_magnitude)[:count]

    def order(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Return tokens as they are chosen; see `OrderedStrategy.order`."""
        return self.select(log_magnitude, duplication, count)


@dataclass(frozen=True, kw_only=True)
class MMR:
    """Greedy maximal marginal relevance, one token a step (section 4.3).

    Parameters
    ----------
    tradeoff : float, default 0.5
        Weight of the magnitude, in [0, 1]. A token's largest duplication with a chosen token is subtracted with the
        weight 1 - `tradeoff`.

    Raises
    ------
    TypeError, ValueError
        If `tradeoff` is no real number, or outside [0, 1].

    Notes
    -----
    The first token is the one of largest magnitude. Each of the M steps compares all N tokens with the newest choice,
    which is the cost that PC-MMR avoids.

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
        chosen = [order_descending(log_magnitude)[:1]]
        relevance = self.tradeoff * xp.exp(log_magnitude)
        shared = xp.zeros_like(relevance)
        is_chosen = everyone == chosen[0]
        while len(chosen) < count:
            latest = xp.concat([duplication(everyone[rows], chosen[-1]) for rows in tiles(everyone.shape[0])])[:, 0]
            shared = xp.maximum(shared, latest if twins is None else xp.take(latest, twins))
            score = xp.where(is_chosen, xp.full_like(relevance, -xp.inf), relevance - (1.0 - self.tradeoff) * shared)
            is_best = score == xp.max(score)
            chosen.append(xp.min(xp.where(is_best, everyone, everyone[-1:]), keepdims=True))
            is_chosen = is_chosen | (everyone == chosen[-1])
        return xp.concat(chosen)

    def order(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Return tokens as they are chosen; see `OrderedStrategy.order`."""
        return self.select(log_magnitude, duplication, count)


@dataclass(frozen=True, kw_only=True)
class PCMMR:
    """Progressive chunked MMR (algorithm 1): take the best tokens, penalise their duplicates, and repeat with more.

    Parameters
    ----------
    chunk : int, default 2
        Size b of the first chunk, at least 1.
    growth : float, default 2.0
        Factor g >= 1 between the sizes of two successive chunks.
    penalty : float, default 5.0
        Strength lambda >= 0 of the penalty: after each chunk, the magnitude of every remaining token is multiplied by
        max(`floor`, 1 - lambda * s), where s is its largest duplication with a token of the chunk.
    floor : float, default 0.01
        Smallest factor that one chunk can multiply by, in [0, 1].
    exponent : {2, 1}, default 2
        What s is: 2 for the mean over heads of the squared similarity (the paper), 1 for its square root (ours).
    temper : float, default 1.0
        Power >= 0 to which the magnitude is raised first. 1 is the paper's; with 0, only duplication counts.

    Raises
    ------
    TypeError, ValueError
        If a parameter is no number of its kind, or outside its range.

    Notes
    -----
    Penalties are applied lazily, with the same result: they only lower a score, so a score with penalties not yet
    applied is an upper bound, and only tokens whose bound could enter the next chunk are updated. Scores are
    logarithms. Of equal scores, the lower index is taken. Memory O(N).

    Min-max scaling makes the weakest magnitude 0, so that token is never preferred to another. The paper's example of
    proposition 3 therefore needs one weaker token for PC-MMR to keep its second direction.

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
        return progressive_chunked_mmr(
            self.tempered(log_magnitude), duplication, self.chunk_sizes(count), **self.penalties
        )

    def order(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Return tokens as they are chosen, the best of a chunk first; see `OrderedStrategy.order`."""
        return ranked_chunked_mmr(self.tempered(log_magnitude), duplication, self.chunk_sizes(count), **self.penalties)

    def tempered(self, log_magnitude: Array) -> Array:
        """Return the log of the magnitude raised to the power `temper`."""
        if self.temper == 1.0:
            return log_magnitude
        return self.temper * log_magnitude if self.temper > 0 else namespace(log_magnitude).zeros_like(log_magnitude)

    @property
    def penalties(self) -> dict[str, Any]:
        """What says how chunks penalise, as arguments of `iwp_core.kernels.progressive_chunked_mmr`."""
        return {"penalty": self.penalty, "floor": self.floor, "exponent": self.exponent}

    def chunk_sizes(self, count: int) -> list[int]:
        """Return the sizes of the chunks in which `count` tokens are chosen.

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
    """Check that a parameter is a finite real number from `least` to `most`.

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it is outside the range.
    """
    span = f">= {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
    allowed = f"expected a finite number {span}"
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}, {allowed}"
        raise TypeError(msg)
    if not (least <= float(value) <= most and math.isfinite(value)):
        msg = f"`{name}` is {value!r}, {allowed}"
        raise ValueError(msg)

"""Duplication that counts only as far as it exceeds what any two candidates share."""

import math
from dataclasses import dataclass, field

from iwp_core._arrays import Array, arange_indices, namespace, tiles
from iwp_core.duplication import PairwiseDuplication
from iwp_core.strategies import PCMMR, OrderedStrategy

__all__ = ["PROBES", "AboveChance", "corrected"]

PROBES = 512
"""Tokens, evenly spaced, that all tokens are compared with to learn what any two share; all of them up to this many."""


@dataclass(frozen=True, kw_only=True)
class AboveChance:
    """Correct similarities for chance before a strategy sees them: (s - m) / (1 - m), at least 0.

    Here s is the root of the duplication of two tokens, and m its mean over all pairs of different candidates. Two
    tokens that are no more alike than an average pair count as different; copies count as copies. Cohen's kappa
    corrects agreement for chance in the same way. The correction helps where all candidates are similar, as hidden
    states of language models are: there a large cosine alone does not mean that two tokens are duplicates.

    Parameters
    ----------
    strategy : OrderedStrategy, default PCMMR()
        The strategy that chooses.

    Raises
    ------
    TypeError
        If `strategy` has no `select` or no `order`.

    Notes
    -----
    Ours. The mean is estimated from the pairs of all tokens with at most 512 of them, evenly spaced, in memory O(N).
    Where all tokens are alike, no two count as duplicates. Traced programs hold it as they hold `strategy`, but it has
    no kernels for a GPU, so that a CUDA graph cannot.

    Examples
    --------
    Tokens 0 and 1 share more than others do; between 0 and 2 there is less in common than on average.

    >>> import numpy as np
    >>> table = np.asarray([[1.0, 0.81, 0.25], [0.81, 1.0, 0.25], [0.25, 0.25, 1.0]])
    >>> strategy = AboveChance(strategy=PCMMR(chunk=1, penalty=1.0, exponent=1))
    >>> strategy.order(np.log([1.0, 0.9, 0.5]), lambda rows, cols: table[np.ix_(rows, cols)], 2)
    array([0, 2])
    """

    strategy: OrderedStrategy = field(default_factory=PCMMR)

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, OrderedStrategy):
            msg = f"`strategy` is {self.strategy!r}, expected an object with `select` and `order`, such as PCMMR()"
            raise TypeError(msg)

    def select(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Choose tokens of one sample; see `Strategy.select`."""
        return self.strategy.select(log_magnitude, _Corrected(duplication, log_magnitude), count)

    def order(self, log_magnitude: Array, duplication: PairwiseDuplication, count: int) -> Array:
        """Return tokens as they are chosen; see `OrderedStrategy.order`."""
        return self.strategy.order(log_magnitude, _Corrected(duplication, log_magnitude), count)


class _Corrected:
    """A duplication whose root has lost what any two tokens share."""

    def __init__(self, duplication: PairwiseDuplication, like: Array) -> None:
        self._duplication = duplication
        self.identical: Array | None = getattr(duplication, "identical", None)
        self._chance = _mean_similarity(duplication, arange_indices(like.shape[0], like))

    def __call__(self, rows: Array, cols: Array, /) -> Array:
        """Return the corrected duplication, shape (R, C)."""
        return corrected(self._duplication(rows, cols), self._chance)


def corrected(duplication: Array, chance: Array) -> Array:
    """Return a duplication less what any two tokens share: of the roots, `chance` is their mean, shape ()."""
    xp = namespace(duplication)
    similarity = xp.sqrt(duplication)
    left = 1.0 - chance
    some = left > 16 * xp.finfo(similarity.dtype).eps
    above = xp.clip((similarity - chance) / xp.where(some, left, xp.ones_like(left)), min=0.0, max=1.0)
    return xp.where(some, above * above, xp.zeros_like(above))


def _mean_similarity(duplication: PairwiseDuplication, everyone: Array) -> Array:
    """Return the mean root of the duplication over pairs of different tokens, shape (); 0 for a single token."""
    xp, total = namespace(everyone), everyone.shape[0]
    probes = everyone[:: math.ceil(total / PROBES)]
    summed: Array = 0.0
    for tile in tiles(total):
        rows = everyone[tile]
        similarity = xp.sqrt(duplication(rows, probes))
        different = rows[:, None] != probes[None, :]
        summed = summed + xp.sum(xp.where(different, similarity, xp.zeros_like(similarity)))
    return summed / max(1, (total - 1) * probes.shape[0])

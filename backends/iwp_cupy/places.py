"""Where the real tokens of each sample of a batch are: what every kernel asks before it reads a token."""

from dataclasses import dataclass
from typing import Any

from iwp_cupy.compiled import cupy

__all__ = ["Places", "everywhere", "real_places"]


@dataclass(frozen=True, kw_only=True)
class Places:
    """The real tokens of a batch.

    Attributes
    ----------
    count : int
        Real tokens of the longest sample.
    counts : array, shape (B,)
        int32: real tokens of each.
    real : array, shape (B, count), or None
        int32: their positions in ascending order, the last one repeated; None where all tokens are real.
    """

    count: int
    counts: Any
    real: Any | None = None

    def positions(self, ordered: Any) -> Any:
        """Return the positions among all tokens of places (B, M), in ascending order, places of `count` last as -1."""
        xp = cupy()
        ordered.sort(axis=1)
        if self.real is None:
            return ordered
        found = xp.take_along_axis(self.real, xp.minimum(ordered, self.count - 1), axis=1)
        return xp.where(ordered < self.count, found, -1).astype("int64")


def everywhere(samples: int, count: int) -> Places:
    """Return the places of samples all of whose tokens are real; waits for nothing."""
    return Places(count=count, counts=cupy().full((samples,), count, dtype="int32"))


def real_places(mask: Any) -> tuple[Places, list[int]]:
    """Return the places of tokens where a mask (B, N) is true, and how many each sample has; waits once."""
    xp = cupy()
    counts = mask.sum(axis=1, dtype="int32")
    known: list[int] = counts.tolist()
    total = mask.shape[1]
    numbers = xp.where(mask, xp.arange(total, dtype="int32"), total)
    last = xp.where(mask, numbers, -1).max(axis=1, keepdims=True)
    numbers.sort(axis=1)
    real = xp.ascontiguousarray(xp.minimum(numbers[:, : max(known)], last), dtype="int32")
    return Places(count=max(known), counts=counts, real=real), known

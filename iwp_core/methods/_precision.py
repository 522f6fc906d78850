"""The dtypes in which a method computes. Official codes run in the dtype of the model, and so do the methods here."""

import math
from dataclasses import dataclass
from typing import Any

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, namespace, tiles
from iwp_core._validate import all_finite

__all__ = ["Precision"]

BLOCK = 1 << 20
"""Numbers that are squared at a time."""


@dataclass(frozen=True)
class Precision:
    """Compute in float32, or float64 if an input has it; with half-precision inputs round after each operation.

    Sums and matrix products accumulate in float32 and are rounded once, as PyTorch does on CPUs and GPUs. This is the
    only way to get the results of the official codes in bfloat16 and float16: another rounding chooses other tokens.

    Parameters
    ----------
    storage : dtype
        Dtype to which results are rounded; None for no rounding.
    compute : dtype
        Dtype of the computation.
    """

    storage: Any
    compute: Any

    @classmethod
    def of(cls, *arrays: Array) -> "Precision":
        """Return the precision for some inputs. It rounds to half precision only if all inputs have that dtype."""
        xp = namespace(*arrays)
        dtypes = {str(array.dtype): array.dtype for array in arrays}
        (dtype, *others) = dtypes.values()
        full = bool(others) or dtype in (xp.float32, xp.float64)
        return cls(None if full else dtype, accumulation_dtype(*arrays))

    def enter(self, x: Array) -> Array:
        """Return an input in the dtype of the computation."""
        return as_dtype(x, self.compute)

    def leave(self, x: Array) -> Array:
        """Return a result in the dtype of the inputs."""
        return as_dtype(self.held(x), self.compute if self.storage is None else self.storage)

    def held(self, x: Array) -> Array:
        """Return a result, after a check that it is finite.

        Raises
        ------
        ValueError
            If it is not finite. A choice by such numbers would be arbitrary.
        """
        if not all_finite(x):
            dtype = x.dtype if self.storage is None else self.storage
            msg = f"what is computed of the arrays is not finite in {dtype}: give wider ones, or scale their entries"
            raise ValueError(msg)
        return x

    def round(self, x: Array) -> Array:
        """Round a result as if it had been stored in the dtype of the inputs."""
        return x if self.storage is None else as_dtype(as_dtype(x, self.storage), self.compute)

    def round_in_range(self, x: Array) -> Array:
        """Round what the dtype of the inputs can hold; a larger factor stays as it is, for a product that may fit."""
        if self.storage is None:
            return x
        xp = namespace(x)
        limits = xp.finfo(self.storage)
        # From half a step above the largest number on, rounding would give infinity.
        fits = x < float(limits.max) * (1 + float(limits.eps) / 4)
        return xp.where(fits, self.round(xp.clip(x, max=float(limits.max))), x)

    def mean(self, x: Array, *, axis: int) -> Array:
        """Return a mean, rounded once."""
        return self.held(self.round(namespace(x).mean(x, axis=axis)))

    def sum(self, x: Array, *, axis: int) -> Array:
        """Return a sum, rounded once."""
        return self.held(self.round(namespace(x).sum(x, axis=axis)))

    def norm(self, x: Array) -> Array:
        """Return the Euclidean norms of rows (..., E), shape (...), rounded once."""
        xp = namespace(x)
        # Squares of all rows at once would be another array as large as x, in memory that was never touched before.
        blocks = [x[tile, ...] for tile in tiles(x.shape[0], max(1, BLOCK * x.shape[0] // math.prod(x.shape)))]
        squares = [xp.sum(block * block, axis=-1) for block in blocks]
        return self.held(self.round(xp.sqrt(xp.concat(squares) if len(squares) > 1 else squares[0])))

    def softmax(self, x: Array) -> Array:
        """Return the soft-max over the last axis, rounded once."""
        xp = namespace(x)
        weights = xp.exp(self.held(x) - xp.max(x, axis=-1, keepdims=True))
        return self.round(weights / xp.sum(weights, axis=-1, keepdims=True))

    def units(self, x: Array) -> Array:
        """Return rows (..., E) scaled to norm one. A row of zeros stays as it is, so its cosine to every row is 0."""
        xp = namespace(x)
        norms = self.norm(x)[..., None]
        return self.round(x / xp.where(norms > 0, norms, xp.ones_like(norms)))

"""Information duplication block by block: tokens made ready once, then one matrix product for each factor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iwp_core._arrays import Array, as_dtype, namespace, take
from iwp_core._plugins import overridable
from iwp_core.identical import first_identical
from iwp_core.similarity import LOG_2, Cosine, Gaussian, columns_of, factors_of

__all__ = ["Duplication", "Gathered", "duplication_block", "similarity_block"]

LARGEST_EXPONENT = 100.0
"""Of a power of two that float32 holds: where rounding can lift an exponent at all, it is lifted no further."""


@dataclass(frozen=True)
class Gathered:
    """Some tokens made ready to be compared; the second axis of each part counts them."""

    parts: tuple[Array, ...]

    @property
    def count(self) -> int:
        """How many tokens they are."""
        return int(self.parts[0].shape[1])

    def cut(self, where: slice) -> "Gathered":
        """Return consecutive ones."""
        return Gathered(tuple(part[:, where, ...] for part in self.parts))

    def take(self, indices: Array) -> "Gathered":
        """Return those at `indices`."""
        return Gathered(tuple(take(part, indices, axis=1) for part in self.parts))

    @staticmethod
    def join(several: Sequence["Gathered"]) -> "Gathered":
        """Return several, one after the other."""
        if len(several) == 1:
            return several[0]
        xp = namespace(several[0].parts[0])
        columns = zip(*(one.parts for one in several), strict=True)
        return Gathered(tuple(xp.concat(list(parts), axis=1) for parts in columns))


class Duplication:
    """Pairwise information duplication of one sample's tokens, computed block by block when asked.

    Parameters
    ----------
    keys : array, shape (H, N, D)
    values : array, shape (H, N, Dv)
    hidden : array, shape (N, E), optional
        Read by the metric "hidden" only.
    metric : {"dual", "value", "hidden", "key", "kernel_key"}
    kernel : {"exponential", "linear"}

    Notes
    -----
    Holds a copy of one of the inputs beside them, in the accumulation dtype: keys moved by their mean, or unit vectors.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.asarray([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
    >>> shared = Duplication(np.zeros((1, 3, 2)), values, metric="value", kernel="exponential")
    >>> shared(np.asarray([0]), np.asarray([1, 2]))
    array([[0., 1.]])
    """

    def __init__(self, keys: Array, values: Array, hidden: Array | None = None, *, metric: str, kernel: str) -> None:
        self._inputs = (keys, values, hidden)
        self._metric, self._kernel = metric, kernel

    @cached_property
    def factors(self) -> tuple[Cosine | Gaussian, ...]:
        """What a similarity is the product of; made when first asked for, so that top-K never pays for it."""
        return factors_of(*self._inputs, metric=self._metric, kernel=self._kernel)

    @cached_property
    def identical(self) -> Array | None:
        """For each token the first token that no similarity can tell from it, shape (N,); None if all differ."""
        return first_identical(*(factor.tokens for factor in self.factors))

    def __call__(self, rows: Array, cols: Array) -> Array:
        """Return the duplication of the tokens `rows` with the tokens `cols`.

        Parameters
        ----------
        rows : array of int, shape (R,)
        cols : array of int, shape (C,)

        Returns
        -------
        array, shape (R, C)
            Mean over heads of the squared similarity, in [0, 1].
        """
        block = self.compare(self.everyone.take(rows), self.as_columns(self.everyone.take(cols)))
        return namespace(block).clip(block, max=1.0)

    @cached_property
    def everyone(self) -> Gathered:
        """All tokens as rows of a block.

        Norms are divided out where it costs least: within the exponent of a Gaussian, or within the first cosine.
        """
        first = self.factors[0]
        others = [factor for factor in self.factors[1:] if isinstance(factor, Cosine)]
        rows = first.rows if isinstance(first, Gaussian) else first.units
        if not others:
            return Gathered((rows,))
        (other,) = others
        if other.divisors is None:
            return Gathered((rows, other.units))
        if isinstance(first, Cosine):
            rows = rows * namespace(rows).exp(-other.divisors)[..., None]
        return Gathered((rows, other.tokens))

    @property
    def width(self) -> int:
        """How many numbers of a token are multiplied by those of another, in all factors and heads."""
        return sum(part.shape[0] * part.shape[2] for part in self.everyone.parts)

    def as_columns(self, rows: Gathered) -> Gathered:
        """Return tokens that are rows of a block as columns of one."""
        first, *others = rows.parts
        return Gathered((columns_of(first) if self._options["gaussian"] else first, *others))

    def compare(self, rows: Gathered, columns: Gathered) -> Array:
        """Return the duplication of gathered tokens, shape (R, C); rounding may lift it above 1."""
        return duplication_block(*self._sides(rows, columns), **self._options)

    def signed(self, rows: Array, cols: Array) -> Array:
        """Return the signed similarity of each head, shape (H, R, C), in [-1, 1]."""
        sides = self._sides(self.everyone.take(rows), self.as_columns(self.everyone.take(cols)))
        similarity = similarity_block(*sides, **self._options)
        return namespace(similarity).clip(similarity, -1.0, 1.0)

    @cached_property
    def _options(self) -> dict[str, Any]:
        first = self.factors[0]
        if isinstance(first, Gaussian):
            return {"gaussian": True, "clip": first.is_rough}
        return {"gaussian": False, "clip": False}

    def _sides(self, rows: Gathered, columns: Gathered) -> list[Array]:
        dtype = rows.parts[0].dtype
        pairs = zip(rows.parts, columns.parts, strict=True)
        return [as_dtype(part, dtype) for pair in pairs for part in pair]


@overridable
def duplication_block(
    rows: Array,
    cols: Array,
    other_rows: Array | None = None,
    other_cols: Array | None = None,
    *,
    gaussian: bool,
    clip: bool = False,
) -> Array:
    """Return the mean over heads of the squared similarity, shape (R, C); parameters as `similarity_block`."""
    xp = namespace(rows)
    similarity = similarity_block(rows, cols, other_rows, other_cols, gaussian=gaussian, clip=clip)
    similarity *= similarity
    shared = xp.sum(similarity, axis=0)
    shared *= 1 / rows.shape[0]
    return shared


def similarity_block(
    rows: Array,
    cols: Array,
    other_rows: Array | None = None,
    other_cols: Array | None = None,
    *,
    gaussian: bool,
    clip: bool = False,
) -> Array:
    """Return the signed similarity of gathered tokens.

    Parameters
    ----------
    rows, cols : array, shape (H, R, D) and (H, C, D)
        Of the first factor; for a Gaussian what `Gaussian.rows` and `columns_of` give.
    other_rows, other_cols : array, shape (H, R, E) and (H, C, E), optional
        Of the second factor, a cosine.
    gaussian : bool
        Whether the product of the first two is an exponent to the base 2, else it is a cosine.
    clip : bool, default False
        Whether rounding may lift an exponent out of range.

    Returns
    -------
    array, shape (H, R, C)
    """
    xp = namespace(rows)
    similarity = xp.matmul(rows, xp.matrix_transpose(cols))
    if gaussian:
        if clip:
            similarity = xp.clip(similarity, max=LARGEST_EXPONENT)
        similarity *= LOG_2
        similarity = xp.exp(similarity)
    if other_rows is not None:
        similarity *= xp.matmul(other_rows, xp.matrix_transpose(other_cols))
    return similarity

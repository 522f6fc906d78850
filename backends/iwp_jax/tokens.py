"""One sample's tokens as a traced program sees them: magnitude, and duplication of all with some."""

import math
from functools import cached_property
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from iwp_core.choice import Rule
from iwp_core.pooling import AVERAGING, of_single_queries
from iwp_core.similarity import Gaussian, factors_of
from iwp_jax.identical import first_identical
from iwp_jax.magnitude import log_magnitude

__all__ = ["COLUMNS", "Tokens"]

COLUMNS = 64
"""Tokens that all are compared with at a time."""


class Tokens:
    """What a strategy asks of the tokens of one sample.

    Parameters
    ----------
    arrays : dict of str to array
        keys (H, N, D), values (H, N, Dv) and mask (N,); queries (Hq, T, D), magnitude_keys, hidden and context if there
        are any.
    rule : Rule
    """

    def __init__(self, arrays: dict[str, Array], rule: Rule) -> None:
        self.real = arrays["mask"]
        kinds = [array.dtype for name, array in arrays.items() if name != "mask"]
        self._dtype = jnp.float64 if jnp.float64 in kinds else jnp.float32
        self._rule = rule
        # What stands at places without a token may be anything.
        self._arrays = {
            name: jnp.where(self.real[:, None], array, jnp.zeros_like(array))
            for name, array in arrays.items()
            if name in ("keys", "values", "magnitude_keys", "hidden")
        }
        self._known: dict[tuple[int, ...], Array] = {}
        self._queries, self._context = arrays.get("queries"), arrays.get("context")

    @cached_property
    def log_magnitude(self) -> Array:
        """Log magnitude, shape (N,)."""
        heads, metric = self._rule.heads, self._rule.magnitude
        keys, values = self._arrays.get("magnitude_keys", self._arrays["keys"]), self._arrays["values"]
        queries = None if self._queries is None else self._queries.astype(self._dtype)
        if queries is not None and heads in AVERAGING:
            queries = jnp.mean(queries, axis=1, keepdims=True)
        read = {"value_norm": (values,), "dual": (keys, values), "gradient_norm": (keys, values)}.get(metric, (keys,))
        return log_magnitude(
            keys.astype(self._dtype),
            values.astype(self._dtype),
            queries,
            self._context,
            self.real,
            self._first_identical(read),
            metric=metric,
            kernel=self._rule.kernel,
            heads=of_single_queries(heads),
        )

    def prepare(self) -> None:
        """Make all that `duplication` reads; what is made within a loop of the program can be read there only."""
        _ = self._twins, self._factors

    def duplication(self, columns: Array) -> Array:
        """Return the mean over heads of the squared similarity of all tokens with those at `columns`, (N, C)."""

        def add(total: Array, parts: tuple[tuple[Array, ...], ...]) -> tuple[Array, None]:
            similarity = jnp.ones_like(total)
            for rows, *offsets in parts:
                product = jnp.matmul(rows, rows[columns].T, precision=lax.Precision.HIGHEST)
                if offsets:
                    product = jnp.exp(jnp.minimum(product + offsets[0][:, None] + offsets[0][columns], 0.0))
                similarity = similarity * product
            return total + similarity * similarity, None

        first = self._factors[0][0]
        nothing = jnp.zeros((first.shape[1], columns.shape[0]), dtype=first.dtype)
        total, _ = lax.scan(add, nothing, self._factors)
        # Identical tokens are compared as the first of them.
        return jnp.minimum(total[self._twins] / first.shape[0], 1.0)

    @cached_property
    def _kinds(self) -> tuple[Any, ...]:
        hidden = self._arrays.get("hidden")
        kernel, metric = self._rule.kernel, self._rule.similarity
        return factors_of(self._arrays["keys"], self._arrays["values"], hidden, metric=metric, kernel=kernel)

    @cached_property
    def _twins(self) -> Array:
        return self._first_identical(tuple(factor.tokens for factor in self._kinds))

    def _first_identical(self, arrays: tuple[Array, ...]) -> Array:
        """Answer once for the same arrays: a sort takes long to compile."""
        key = tuple(map(id, arrays))
        if key not in self._known:
            self._known[key] = first_identical(*arrays)
        return self._known[key]

    @cached_property
    def _factors(self) -> tuple[tuple[Array, ...], ...]:
        """Rows (H, N, D) of each factor, and for a Gaussian what is added to their product, (H, N)."""
        parts: list[tuple[Array, ...]] = []
        for factor in self._kinds:
            rows = factor.tokens.astype(self._dtype)
            if isinstance(factor, Gaussian):
                moved = (rows - jnp.mean(rows, axis=1, keepdims=True)) / math.sqrt(math.sqrt(rows.shape[-1]))
                parts.append((moved, -0.5 * jnp.sum(moved * moved, axis=-1)))
            else:
                parts.append((_units(rows),))
        return tuple(parts)


def _units(rows: Array) -> Array:
    largest = jnp.max(jnp.abs(rows), axis=-1, keepdims=True)
    scaled = rows / jnp.where(largest > 0, largest, 1)
    norms = jnp.sqrt(jnp.sum(scaled * scaled, axis=-1, keepdims=True))
    return scaled / jnp.where(norms > 0, norms, 1)

"""`iwp_core.above_chance` as a program of static shape: duplication less what any two tokens share."""

from functools import cached_property
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from iwp_core.above_chance import PROBES, corrected
from iwp_jax.tokens import COLUMNS

__all__ = ["AboveChanceTokens"]


class AboveChanceTokens:
    """Tokens whose duplication counts only as far as it exceeds what any two share.

    Parameters
    ----------
    tokens : Tokens or AboveChanceTokens
    """

    def __init__(self, tokens: Any) -> None:
        tokens.prepare()
        self._tokens = tokens
        self.real: Array = tokens.real
        self._chance = self._mean_similarity()

    @cached_property
    def log_magnitude(self) -> Array:
        """Log magnitude, shape (N,)."""
        magnitude: Array = self._tokens.log_magnitude
        return magnitude

    def prepare(self) -> None:
        """Do nothing: all is made from the beginning."""

    def duplication(self, columns: Array) -> Array:
        """Return the corrected duplication of all tokens with those at `columns`, (N, C)."""
        above: Array = corrected(self._tokens.duplication(columns), self._chance)
        return above

    def _mean_similarity(self) -> Array:
        """Return the mean root of the duplication over pairs of different real tokens, shape (); 0 for a single one."""
        total = jnp.sum(self.real)
        rank = jnp.cumsum(self.real) - 1
        is_probe = self.real & (rank % jnp.maximum(1, -(-total // PROBES)) == 0)
        count, everyone = jnp.sum(is_probe), jnp.arange(self.real.shape[0])
        room = -(-min(PROBES, everyone.shape[0]) // COLUMNS) * COLUMNS
        probes = jnp.nonzero(is_probe, size=room, fill_value=0)[0]

        def add(tile: Array, summed: Array) -> Array:
            columns = lax.dynamic_slice(probes, (tile * COLUMNS,), (COLUMNS,))
            asked = tile * COLUMNS + jnp.arange(COLUMNS) < count
            pairs = self.real[:, None] & asked[None, :] & (everyone[:, None] != columns[None, :])
            return summed + jnp.sum(jnp.where(pairs, jnp.sqrt(self._tokens.duplication(columns)), 0.0))

        nothing = jnp.zeros((), dtype=self.log_magnitude.dtype)
        summed: Array = lax.fori_loop(0, room // COLUMNS, add, nothing)
        return summed / jnp.maximum(1, (total - 1) * count)

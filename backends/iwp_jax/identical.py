"""Which tokens are bit-identical, so that ties between them are exact, in a program of static shape."""

import jax.numpy as jnp
from jax import Array, lax

__all__ = ["first_identical"]

ODD = (0x9E3779B1, 0x85EBCA77)
"""Two numbers without pattern, one for each of two hashes of 32 bits."""


def first_identical(*arrays: Array) -> Array:
    """Return for each token of arrays (H, N, D) the position of the first token identical to it, shape (N,).

    Two hashes propose, and rows are compared with the first of their run before they count as equal. Of tokens whose
    64 bits collide with those of another, unequal one, no two are joined.
    """
    words = jnp.concatenate([_words(array) for array in arrays], axis=1)
    first, second = (_hash(words, odd) for odd in ODD)
    order = jnp.lexsort((second, first))
    places = jnp.arange(order.shape[0])
    same = (first[order][1:] == first[order][:-1]) & (second[order][1:] == second[order][:-1])
    opens = jnp.concatenate([jnp.ones(1, dtype=bool), ~same])
    leaders = order[lax.cummax(jnp.where(opens, places, 0))]
    equal = jnp.all(words[leaders] == words[order], axis=1)
    return jnp.zeros_like(order).at[order].set(jnp.where(equal, leaders, order))


def _words(array: Array) -> Array:
    """Return the bits of each token as integers, shape (N, L)."""
    rows = jnp.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
    plain = jnp.where(rows == 0, jnp.zeros_like(rows), rows)  # one zero, not two
    narrow = jnp.uint16 if rows.dtype.itemsize == 2 else jnp.uint32  # noqa: PLR2004 - bytes of half precision
    return lax.bitcast_convert_type(plain, narrow).reshape(rows.shape[0], -1).astype(jnp.uint32)


def _hash(words: Array, odd: int) -> Array:
    """Return an integer for each row; sums of integers are the same in any order."""
    factors = (2 * jnp.arange(words.shape[1], dtype=jnp.uint32) + 1) * jnp.uint32(odd)
    mixed = (words ^ (words >> 15)) * jnp.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> 13)) * factors
    return jnp.sum(mixed ^ (mixed >> 16), axis=1, dtype=jnp.uint32)

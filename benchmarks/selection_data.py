"""Kinds of visual tokens that a selection is timed on: keys, values and queries in float32."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

HEADS, QUERY_HEADS, WIDTH = 4, 28, 128

BIAS = 300.0
"""Norm of what all keys of a head have in common, as the biases of the Qwen2 family give it."""


def clustered(total: int, clusters: int, noise: float, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return tokens scattered around random centres, as neighbouring patches of a picture are."""
    generator = np.random.default_rng(seed)
    member = generator.integers(0, max(1, clusters), total)

    def scattered() -> NDArray[np.float64]:
        centres = generator.standard_normal((HEADS, max(1, clusters), WIDTH))
        return np.take(centres, member, axis=1) + noise * generator.standard_normal((HEADS, total, WIDTH))

    bias = generator.standard_normal((HEADS, 1, WIDTH))
    keys = scattered() + BIAS * bias / np.linalg.norm(bias, axis=-1, keepdims=True)
    return _single(keys, scattered(), generator.standard_normal((QUERY_HEADS, WIDTH)))


def unclustered(total: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return independent tokens: nothing is like anything else."""
    generator = np.random.default_rng(seed)
    shapes = ((HEADS, total, WIDTH), (HEADS, total, WIDTH), (QUERY_HEADS, WIDTH))
    return _single(*(generator.standard_normal(shape) for shape in shapes))


def blank(total: int, seed: int = 0, share: float = 0.35) -> tuple[Floats, Floats, Floats]:
    """Return clustered tokens of which a share are one and the same token, as blank regions give them."""
    keys, values, queries = clustered(total, total // 36, 0.4, seed)
    where = np.random.default_rng(seed + 1).random(total) < share
    for tokens in (keys, values):
        tokens[:, where] = tokens[:, :1]
    return keys, values, queries


def near_copies(total: int, seed: int = 0, noise: float = 1e-6) -> tuple[Floats, Floats, Floats]:
    """Return one token again and again with a little noise: black frames, inputs of zeros."""
    generator = np.random.default_rng(seed)

    def copies() -> NDArray[np.float64]:
        one = generator.standard_normal((HEADS, 1, WIDTH))
        return one + noise * generator.standard_normal((HEADS, total, WIDTH))

    return _single(copies(), copies(), generator.standard_normal((QUERY_HEADS, WIDTH)))


def _single(*arrays: NDArray[np.float64]) -> tuple[Floats, Floats, Floats]:
    keys, values, queries = (np.ascontiguousarray(x, dtype=np.float32) for x in arrays)
    return keys, values, queries


KINDS: dict[str, Callable[[int], tuple[Floats, Floats, Floats]]] = {
    "many small clusters": lambda total: clustered(total, total // 36, 0.4),
    "100 clusters": lambda total: clustered(total, 100, 0.2),
    "few tight clusters": lambda total: clustered(total, 20, 0.05),
    "no clusters": unclustered,
    "35 % blank": blank,
    "near copies": near_copies,
}

"""The rivals' loops against slow NumPy readings of their papers, in float64."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)
TOTAL, WIDTH, WORDS = 17, 24, 5


def cosines(features: Floats) -> Floats:
    """Cosine of each pair of rows."""
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    return units @ units.T


def div_prune(features: Floats, count: int) -> list[int]:
    """Farthest from its nearest neighbour first, then farthest from the nearest of the chosen."""
    distances = 1 - cosines(features)
    chosen = [int(np.argmax(np.sort(distances, axis=0)[1]))]
    while len(chosen) < count:
        gap = {i: min(distances[i, j] for j in chosen) for i in range(len(features)) if i not in chosen}
        chosen.append(max(gap, key=gap.__getitem__))
    return sorted(chosen)


def cd_pruner(features: Floats, relevance: Floats, count: int) -> list[int]:
    """Add the token that makes the kernel's determinant over the chosen largest: no Cholesky factor at all."""
    quality = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    kernel = quality[:, None] * cosines(features) * quality
    chosen: list[int] = []
    while len(chosen) < count:
        left = [i for i in range(len(features)) if i not in chosen]
        volume = {i: np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])]).logabsdet for i in left}
        chosen.append(max(volume, key=volume.__getitem__))
    return sorted(chosen)


def scope(features: Floats, saliency: Floats, count: int) -> list[int]:
    """Add the token whose gain in coverage, times its saliency, is largest."""
    similarity = cosines(features)

    def coverage(chosen: list[int]) -> float:
        return (
            float(sum(max(0.0, *(similarity[i, j] for j in chosen)) for i in range(len(features)))) if chosen else 0.0
        )

    chosen: list[int] = []
    while len(chosen) < count:
        left = [i for i in range(len(features)) if i not in chosen]
        gain = {j: (coverage([*chosen, j]) - coverage(chosen)) * saliency[j] for j in left}
        chosen.append(max(gain, key=gain.__getitem__))
    return sorted(chosen)


def trim_tokenator(features: Floats, text: Floats, count: int) -> list[int]:
    """Keep 80 % by distance to the text; then add the token whose summed similarity to the chosen is least."""
    apart = [np.mean([np.linalg.norm(v - t) for t in text]) for v in features]
    left = sorted(np.argsort(apart, kind="stable")[: max(int(0.8 * len(features)), count)].tolist())
    similarity = cosines(features)
    chosen = [min(left, key=lambda i: similarity[i, left].mean())]
    while len(chosen) < count:
        rest = [i for i in left if i not in chosen]
        chosen.append(min(rest, key=lambda i: similarity[i, chosen].sum() / len(chosen)))
    return sorted(chosen)


@pytest.fixture(scope="module")
def rivals() -> ModuleType:
    """Give the loops."""
    return import_module("greedy_rivals")


TIE = 1e-9
"""Distances closer than this are equal but for rounding."""

READINGS: dict[str, tuple[Callable[..., list[int]], str | None]] = {
    "div_prune": (div_prune, None),
    "cd_pruner": (cd_pruner, "weights"),
    "scope": (scope, "weights"),
    "trim_tokenator": (trim_tokenator, "text"),
}


@pytest.mark.parametrize("name", READINGS)
@given(seed=SEEDS, count=st.integers(1, TOTAL))
def test_a_rival_chooses_what_its_paper_says(rivals: ModuleType, name: str, seed: int, count: int) -> None:
    """For every budget up to all tokens."""
    reading, second = READINGS[name]
    rng = np.random.default_rng(seed)
    # A common part, so that cosines are not all about zero.
    features = rng.normal(size=(TOTAL, WIDTH)) + rng.normal(size=WIDTH)
    # Two tokens that are each other's nearest tie exactly, and rounding would choose between them.
    *_, second_best, best = np.sort(np.sort(1 - cosines(features), axis=0)[1])
    assume(name != "div_prune" or best - second_best > TIE)
    others = {"weights": rng.random(TOTAL), "text": rng.normal(size=(WORDS, WIDTH))}
    given_arrays = [features] if second is None else [features, others[second]]

    found = getattr(rivals, name)(*map(torch.from_numpy, given_arrays), count)

    assert found.dtype == torch.int64
    assert found.tolist() == reading(*given_arrays, count)


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_rival_gives_distinct_tokens_where_few_differ(rivals: ModuleType, name: str, dtype: torch.dtype) -> None:
    """Copies and a kernel of low rank break official codes, which repeat tokens or lose them."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 3, generator=generator).repeat(5, 1).to(dtype)
    others = {"weights": torch.rand(20, generator=generator), "text": torch.randn(2, 3, generator=generator).to(dtype)}
    second = READINGS[name][1]

    found = getattr(rivals, name)(*([features] if second is None else [features, others[second]]), 12)

    assert len(set(found.tolist())) == 12
    assert found.tolist() == sorted(found.tolist())
    assert found[0] >= 0
    assert found[-1] < 20

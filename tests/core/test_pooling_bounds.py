"""What pooled magnitudes bound: the change of single outputs when tokens are dropped, by a plain softmax in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_core import TopK, magnitude, select_tokens
from iwp_core.samples import check_tokens
from tests.strategies import Tokens, sample

Floats = np.ndarray
POWERS = [1.0, 2.0, 4.0, math.inf]
seeds, counts = st.integers(0, 10_000), st.integers(1, 11)
powers = pytest.mark.parametrize("power", POWERS, ids=lambda p: "max" if p == math.inf else f"p={p:g}")


@dataclass(frozen=True)
class Scene:
    """Twelve candidates, five other tokens, three queries for each of four heads."""

    tokens: Tokens
    queries: Floats
    others: Tokens

    @classmethod
    def of(cls, seed: int) -> Scene:
        """Draw one; the queries of some heads look elsewhere most of the time."""
        generator = np.random.default_rng(seed)
        tokens, others = sample(seed, tokens=12, spread=2.0), sample(seed + 1, tokens=5, spread=3.0)
        return cls(tokens, 2 * generator.standard_normal((4, 3, tokens.keys.shape[-1])), others)

    def seen_by(self, head: int) -> tuple[Floats, Floats]:
        """Return keys and values, the candidates' first."""
        own = head // 2
        return (
            np.concatenate([self.tokens.keys[own], self.others.keys[own]]),
            np.concatenate([self.tokens.values[own], self.others.values[own]]),
        )

    def outputs(self, dropped: Floats) -> tuple[Floats, Floats, Floats]:
        """Return outputs (4, 3, Dv) before and after tokens are dropped, and what these carried."""
        before, after, carried = [], [], []
        kept = np.setdiff1d(np.arange(17), dropped)
        for head, asked in enumerate(self.queries):
            keys, values = self.seen_by(head)
            for query in asked:
                weights = softmax(keys @ query / math.sqrt(len(query)))
                before.append(weights @ values)
                carried.append(weights[dropped] @ values[dropped])
                after.append(softmax(keys[kept] @ query / math.sqrt(len(query))) @ values[kept])
        return np.stack(before), np.stack(after), np.stack(carried)

    def context(self) -> Floats:
        """Return the log-sum-exp of each query's logits over the other tokens, (4, 3)."""
        others = np.stack([self.seen_by(head)[0][12:] for head in range(4)])
        logits = self.queries @ others.swapaxes(1, 2) / math.sqrt(others.shape[-1])
        return np.asarray(np.log(np.exp(logits).sum(-1)))

    def pooled(self, power: float, metric: str) -> Floats:
        """Return the library's numbers of the candidates (12,), before they are scaled to [0, 1]."""
        arrays = (self.tokens.keys, self.tokens.values, self.queries)
        (only,) = check_tokens(*arrays, context=self.context())
        heads: str | float = "max" if power == math.inf else power
        return np.exp(
            magnitude.log_sample_magnitude(only, metric=metric, kernel="exponential", heads=heads, scaled=False)
        )


def softmax(logits: Floats) -> Floats:
    """Weights that add up to one."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def together(errors: Floats, power: float) -> float:
    """One number for the lengths of the errors of all outputs."""
    return float(np.linalg.norm(np.linalg.norm(errors, axis=-1), ord=power))


def some(seed: int, count: int) -> Floats:
    """Choose some of the candidates."""
    return np.random.default_rng(seed + 2).permutation(12)[:count]


@powers
@given(seed=seeds, count=counts)
def test_what_dropped_tokens_carried_is_at_most_the_sum_of_their_numbers(power: float, seed: int, count: int) -> None:
    """Minkowski: p says by which norm the errors of all outputs of all heads are bounded."""
    scene, dropped = Scene.of(seed), some(seed, count)

    _, _, carried = scene.outputs(dropped)

    assert together(carried, power) <= scene.pooled(power, "dual")[dropped].sum() * (1 + 1e-9)


@powers
@given(seed=seeds, count=counts)
def test_outputs_move_by_at_most_shares_times_values_and_what_is_said_louder(
    power: float, seed: int, count: int
) -> None:
    """The softmax that remains gives the dropped weight to other values, none longer than the longest of them."""
    scene, dropped = Scene.of(seed), some(seed, count)
    longest = max(np.linalg.norm(part.values, axis=-1).max() for part in (scene.tokens, scene.others))

    before, after, _ = scene.outputs(dropped)

    bound = scene.pooled(power, "dual")[dropped].sum() + longest * scene.pooled(power, "kernel")[dropped].sum()
    assert together(after - before, power) <= bound * (1 + 1e-9)


@powers
@given(seed=seeds, token=st.integers(0, 11))
def test_the_number_of_one_token_is_the_length_of_what_it_carried(power: float, seed: int, token: int) -> None:
    """For the maximum: the largest error in any output of any head; no looser bound would do."""
    scene = Scene.of(seed)

    _, _, carried = scene.outputs(np.asarray([token]))

    assert scene.pooled(power, "dual")[token] == pytest.approx(together(carried, power), rel=1e-9)


@powers
@given(seed=seeds, count=counts)
def test_top_k_makes_the_bound_least(power: float, seed: int, count: int) -> None:
    """No other tokens of the same number have a smaller sum left over."""
    scene = Scene.of(seed)
    heads: str | float = "max" if power == math.inf else power
    kept = select_tokens(
        scene.tokens.keys,
        scene.tokens.values,
        scene.queries,
        count,
        heads=heads,
        context=scene.context(),
        strategy=TopK(),
    )

    numbers = scene.pooled(power, "dual")

    assert numbers[np.setdiff1d(np.arange(12), kept)].sum() <= np.sort(numbers)[: 12 - count].sum() * (1 + 1e-9)


@given(seed=seeds)
def test_an_averaged_query_takes_the_geometric_mean_of_queries(seed: int) -> None:
    """Why a token that one query of many asks for is lost to ``heads="mean"``."""
    scene = Scene.of(seed)
    (only,) = check_tokens(scene.tokens.keys, scene.tokens.values, scene.queries)

    pooled = magnitude.log_sample_magnitude(only, metric="dual", kernel="exponential", heads="mean", scaled=False)

    rows = []
    for head, asked in enumerate(scene.queries):
        keys, values = (part[:12] for part in scene.seen_by(head))
        kernels = np.exp(asked @ keys.T / math.sqrt(asked.shape[-1]))
        rows.append(np.prod(kernels, axis=0) ** (1 / 3) * np.linalg.norm(values, axis=-1))
    ratios = np.exp(pooled) / np.mean(rows, axis=0)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)

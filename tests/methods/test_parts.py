"""The parts that several methods share, against slow readings of what they are to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iwp_core.methods._cosine import BAND, cosines, largest_other
from iwp_core.methods._groups import group_sums
from iwp_core.methods._precision import Precision
from iwp_core.methods.bipartite_matching import match_halves
from iwp_core.methods.density_peaks import density_peaks, spread_peaks
from iwp_core.methods.determinantal import greedy_determinant
from iwp_core.methods.facility_location import greedy_coverage
from iwp_core.methods.max_min import greedy_max_min
from iwp_core.methods.max_sum import greedy_max_sum

Floats = NDArray[np.float64]
FULL = Precision(None, np.float64)
SEEDS = range(8)


def units(x: Floats) -> Floats:
    """Return rows at length one."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def features(seed: int, *, tokens: int = 40, clusters: int = 6) -> Floats:
    """Draw tokens around few centres, so that distances differ by orders of magnitude."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, 8))
    return centres[rng.integers(0, clusters, tokens)] + 0.1 * rng.standard_normal((tokens, 8))


def greedy(score: Callable[[list[int], int], float], count: int, total: int) -> list[int]:
    """Take the best token given those chosen, again and again; ties: lower index."""
    chosen: list[int] = []
    for _ in range(count):
        left = [token for token in range(total) if token not in chosen]
        chosen.append(max(left, key=lambda token: score(chosen, token)))
    return chosen


@pytest.mark.parametrize("seed", SEEDS)
def test_max_min_is_the_plain_greedy_loop(seed: int) -> None:
    """Each token is the farthest from its nearest chosen one; the first from its nearest neighbour."""
    x = features(seed)
    distance = 1 - units(x) @ units(x).T
    np.fill_diagonal(distance, np.inf)

    def score(chosen: list[int], token: int) -> float:
        return float(distance[token, chosen].min() if chosen else distance[token].min())

    assert greedy_max_min(x, 15).tolist() == greedy(score, 15, 40)


@pytest.mark.parametrize("seed", SEEDS)
def test_max_sum_is_the_plain_greedy_loop(seed: int) -> None:
    """Each token has the least summed cosine to the chosen; the first to all."""
    x = features(seed)
    cosine = units(x) @ units(x).T

    def score(chosen: list[int], token: int) -> float:
        return -float(cosine[token, chosen].sum() if chosen else cosine[token].mean())

    assert greedy_max_sum(x, 15).tolist() == greedy(score, 15, 40)


@pytest.mark.parametrize("seed", SEEDS)
def test_determinant_is_the_largest_at_each_step(seed: int) -> None:
    """Each token makes the determinant of the chosen kernel largest, computed anew by NumPy."""
    rng = np.random.default_rng(seed)
    x, quality = rng.standard_normal((20, 12)), rng.uniform(0.2, 1.0, 20)
    cosine = units(x) @ units(x).T
    kernel = quality[:, None] * cosine * quality

    def score(chosen: list[int], token: int) -> float:
        rows = [*chosen, token]
        return float(np.linalg.slogdet(kernel[np.ix_(rows, rows)])[1])

    assert greedy_determinant(cosine, quality, 10).tolist() == greedy(score, 10, 20)


@pytest.mark.parametrize("count", [5, 30])
def test_determinant_beyond_the_rank_goes_on_by_quality(count: int) -> None:
    """Of tokens in a plane two span all; then the most relevant of the others follow, each once."""
    x = features(0, tokens=30)[:, :2]
    quality = np.random.default_rng(0).uniform(0.2, 1.0, 30)

    chosen = greedy_determinant(units(x) @ units(x).T, quality, count).tolist()

    others = sorted(set(range(30)) - set(chosen[:2]), key=lambda token: -quality[token])
    assert chosen[2:] == others[: count - 2]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("duplicates", [False, True])
def test_coverage_is_the_plain_greedy_loop(seed: int, duplicates: bool) -> None:
    """Lazy evaluation chooses what the loop over all pairs chooses, also among identical tokens."""
    x = features(seed, tokens=60)
    if duplicates:
        x[30:] = x[:30]
    similarity = units(x) @ units(x).T
    similarity[30:] = similarity[:30] if duplicates else similarity[30:]
    similarity[:, 30:] = similarity[:, :30] if duplicates else similarity[:, 30:]
    weights = np.tile(np.random.default_rng(seed).uniform(0.1, 1.0, 30), 2)

    def gain(chosen: list[int], token: int) -> float:
        covered = similarity[chosen].max(axis=0).clip(min=0) if chosen else np.zeros(60)
        return float((similarity[token] - covered).clip(min=0).sum() * weights[token])

    def worth(gains: Any, tokens: Any) -> Any:
        return gains * weights[tokens]

    found = greedy_coverage(similarity, worth, 25, precision=FULL)

    assert found.tolist() == greedy(gain, 25, 60)


@pytest.mark.parametrize("tokens", [1, 3, BAND, BAND + 1, 2 * BAND + 7])
def test_cosines_in_bands_are_all_cosines(tokens: int) -> None:
    """Blocks below the diagonal are the transposes of those above, whatever the number of tokens."""
    x = features(1, tokens=tokens)

    found = cosines(x, FULL)

    np.testing.assert_allclose(found, units(x) @ units(x).T, atol=1e-14)
    np.testing.assert_array_equal(found, found.T)
    np.fill_diagonal(found, -np.inf)
    np.testing.assert_array_equal(largest_other(found), found.max(axis=1))


def test_a_row_of_zeros_is_at_a_right_angle_to_all() -> None:
    """It has cosine 0 with itself too, and nothing becomes NaN."""
    x = np.asarray([[0.0, 0.0], [1.0, 0.0]])

    np.testing.assert_array_equal(cosines(x, FULL), [[0.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("groups", [1, 5, 200])
def test_group_sums_are_sums_over_groups(groups: int) -> None:
    """Rows of a negative group are in none, and empty groups sum to zero."""
    rng = np.random.default_rng(groups)
    x, assignment = rng.standard_normal((90, 3)), rng.integers(-1, groups, 90)

    found = group_sums(x, assignment, groups)

    np.testing.assert_allclose(found, [x[assignment == group].sum(axis=0) for group in range(groups)], atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cutoff", [0.001, 0.2, 1.0])
def test_spread_peaks_are_one_pass_in_falling_density(seed: int, cutoff: float) -> None:
    """A token is a centre if and only if no denser centre is near; equal densities: lower index first."""
    distance = 1 - units(features(seed)) @ units(features(seed)).T
    density = np.random.default_rng(seed).integers(0, 20, 40).astype(float)
    centres: list[int] = []
    for token in np.argsort(-density, kind="stable"):
        if not any(distance[token, centre] <= cutoff for centre in centres):
            centres.append(int(token))

    assert spread_peaks(distance, density, cutoff).tolist() == sorted(centres)


def test_density_peaks_are_dense_and_far_from_denser_tokens() -> None:
    """Two groups on a line give their densest tokens, and every token goes to the nearer one."""
    places = np.asarray([0.0, 1.0, 2.0, 50.0, 51.0, 52.0, 53.0])
    distance = np.abs(places[:, None] - places)
    density = np.asarray([1.0, 3.0, 1.0, 1.0, 4.0, 2.0, 1.0])

    centres, assignment = density_peaks(distance, density, 2, precision=FULL)

    assert centres.tolist() == [4, 1]
    assert assignment.tolist() == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("tokens", [2, 7, 8])
def test_halves_meet_their_most_similar_tokens(tokens: int) -> None:
    """Each even token gets the odd one of largest cosine, by a loop over all pairs."""
    x = features(2, tokens=tokens)
    best = [max((float(a @ b), -j) for j, b in enumerate(units(x)[1::2])) for a in units(x)[0::2]]

    similarity, match = match_halves(x, precision=FULL)

    np.testing.assert_allclose(similarity, [cosine for cosine, _ in best])
    assert match.tolist() == [-j for _, j in best]


@pytest.mark.parametrize(("length", "count"), [(1, 1), (5, 3)])
def test_halves_round_after_every_operation(length: int, count: int) -> None:
    """With float16 inputs a norm is what float16 can hold, computed in float32."""
    x = np.full((count, length), 1.001, dtype=np.float16)
    precision = Precision.of(x)

    norms = precision.norm(precision.enter(x))

    assert norms.dtype == np.float32
    assert (norms == norms.astype(np.float16)).all()
    assert precision.leave(norms).dtype == np.float16

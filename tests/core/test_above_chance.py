"""`AboveChance`: what any two candidates share counts for nothing, against a plain reading of the correction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iwp_core import MMR, PCMMR, Strategy, TopK, above_chance, select_tokens
from iwp_core.above_chance import AboveChance
from iwp_core.presets import ABOVE_CHANCE
from tests import oracles
from tests.libraries import Library
from tests.strategies import sample

GREEDY: dict[str, Any] = {"chunk": 1, "growth": 1.1, "penalty": 1.0, "exponent": 1}
BY_STATES: dict[str, Any] = {"heads": "max", "similarity": "hidden", "strategy": AboveChance(strategy=PCMMR(**GREEDY))}


def corrected(table: np.ndarray) -> np.ndarray:
    """Return the square of (s - m) / (1 - m), at least 0, m the mean of s over pairs of different tokens."""
    similarity = np.sqrt(table)
    pairs = [similarity[i, j] for i in range(len(table)) for j in range(len(table)) if i != j]
    chance = sum(pairs) / len(pairs)
    return np.asarray(np.maximum((similarity - chance) / (1 - chance), 0.0) ** 2)


def scene(seed: int, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Log magnitudes, and duplications with much in common to all."""
    generator = np.random.default_rng(seed)
    states = generator.standard_normal((count, 5)) + np.asarray([2.0, 0, 0, 0, 0])
    return np.log(generator.uniform(0.01, 1.0, count)), oracles.cosines(states) ** 2


@pytest.mark.parametrize("options", [{}, GREEDY, {"chunk": 3, "temper": 0.5}], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_tokens_are_those_of_algorithm_1_on_corrected_similarities(seed: int, options: dict[str, Any]) -> None:
    """In the order of choice too."""
    scores, table = scene(seed)
    strategy, pairs = AboveChance(strategy=PCMMR(**options)), oracles.pair_lookup(table)

    chosen = strategy.select(scores, pairs, 7)

    expected = oracles.pc_mmr(scores, oracles.pair_lookup(corrected(table)), 7, **options)
    assert sorted(chosen.tolist()) == sorted(expected)
    assert sorted(strategy.order(scores, pairs, 7).tolist()) == sorted(expected)


def test_selection_goes_by_the_largest_share_and_by_states_above_chance(xp: Library) -> None:
    """End to end: `select_tokens` on arrays of any library."""
    tokens = sample(3, tokens=12 if xp.slow_to_compile else 16, heads=2, group=2, clusters=5)
    queries = np.random.default_rng(3).standard_normal((4, 5, 4))
    arrays = [xp.array(x) for x in (tokens.keys, tokens.values, queries)]

    kept = select_tokens(*arrays, 6, hidden=xp.array(tokens.hidden), **BY_STATES)

    scores = oracles.log_magnitude_by_shares(queries, tokens.keys, tokens.values, "max")
    pairs = oracles.pair_lookup(corrected(oracles.cosines(tokens.hidden) ** 2))
    assert xp.numpy(kept).tolist() == sorted(oracles.pc_mmr(scores, pairs, 6, **GREEDY))


def test_preset_goes_by_each_querys_softmax_and_by_states_above_chance() -> None:
    """Every query of every head has one vote; states that are alike by chance are no duplicates."""
    tokens = sample(4, tokens=16, heads=2, group=2, clusters=5)
    queries = np.random.default_rng(4).standard_normal((4, 5, 4))

    kept = select_tokens(tokens.keys, tokens.values, queries, 6, hidden=tokens.hidden, **ABOVE_CHANCE)

    scores = oracles.log_magnitude_of_each_query(queries, tokens.keys, tokens.values)
    pairs = oracles.pair_lookup(corrected(oracles.cosines(tokens.hidden) ** 2))
    assert kept.tolist() == sorted(oracles.pc_mmr(scores, pairs, 6, **GREEDY))


def test_what_all_candidates_share_is_no_duplication() -> None:
    """A constant similarity of all pairs leaves the largest magnitudes, however large it is."""
    table = np.where(np.eye(6) > 0, 1.0, 0.9)
    scores = np.log([0.1, 0.6, 0.5, 0.4, 0.3, 0.2])

    chosen = AboveChance(strategy=PCMMR(**GREEDY)).order(scores, oracles.pair_lookup(table), 3)

    assert chosen.tolist() == [1, 2, 3]


@pytest.mark.parametrize("count", [1, 4])
def test_copies_of_one_token_are_taken_in_order(count: int) -> None:
    """Where all are alike none is a duplicate more than another; a token alone has nothing to be compared with."""
    chosen = AboveChance().select(np.zeros(count), oracles.pair_lookup(np.ones((count, count))), count)

    assert sorted(chosen.tolist()) == list(range(count))


def test_chance_is_learnt_from_evenly_spaced_tokens_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens against every third of them, themselves left out."""
    scores, table = scene(5)
    monkeypatch.setattr(above_chance, "PROBES", 8)
    similarity = np.sqrt(table)
    pairs = [similarity[i, j] for i in range(24) for j in range(0, 24, 3) if i != j]
    chance = sum(pairs) / len(pairs)

    chosen = AboveChance(strategy=PCMMR(**GREEDY)).select(scores, oracles.pair_lookup(table), 7)

    above = oracles.pair_lookup(np.maximum((similarity - chance) / (1 - chance), 0.0) ** 2)
    assert sorted(chosen.tolist()) == sorted(oracles.pc_mmr(scores, above, 7, **GREEDY))


@pytest.mark.parametrize("strategy", [None, "PCMMR", 0.5], ids=repr)
def test_what_is_no_strategy_is_refused(strategy: Any) -> None:
    """Something has to choose, and in an order."""
    with pytest.raises(TypeError, match=r"`strategy` is .*, expected an object with `select` and `order`"):
        AboveChance(strategy=strategy)


@pytest.mark.parametrize("strategy", [PCMMR(), MMR(), TopK()], ids=lambda s: type(s).__name__)
def test_every_strategy_of_the_core_can_be_asked(strategy: Any) -> None:
    """It is a strategy itself."""
    assert isinstance(AboveChance(strategy=strategy), Strategy)

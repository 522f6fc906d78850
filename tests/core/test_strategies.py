"""PC-MMR, MMR and TopK on tables of scores: however PC-MMR computes, the answer is algorithm 1's, always."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_core import MMR, PCMMR, Strategy, TopK, pc_mmr
from tests import oracles
from tests.libraries import Array, Library
from tests.strategies import Pool, pcmmr_options, pools, sample

STRATEGIES = [TopK(), PCMMR(), MMR()]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)

# 1 - 5 * 0.2 is 0, so the floor decides; all four scores tie again after the first penalty.
TIES = Pool(scores=np.ones(6), table=np.where(np.eye(6) > 0, 1.0, 0.2), count=5)
# Every score is -inf, and there is nothing left to compare but the index.
SILENT = Pool(scores=np.zeros(6), table=np.eye(6), count=4)


def choose(strategy: Strategy, pool: Pool, xp: Library) -> list[int]:
    """Run a strategy on a pool and return the chosen positions, ascending."""
    chosen = strategy.select(xp.array(pool.log_scores), xp.lookup(pool.table), pool.count)
    return sorted(int(i) for i in xp.numpy(chosen))


def agrees_with_algorithm_1(xp: Library, pool: Pool, options: dict[str, Any]) -> bool:
    """Tell whether PC-MMR chooses what the plain loop chooses."""

    def log(x: oracles.Floats) -> oracles.Floats:
        # Logarithms of two libraries differ in the last bit, which decides between exact ties.
        with np.errstate(divide="ignore"):
            return xp.numpy(xp.namespace.log(xp.array(x)))

    expected = oracles.pc_mmr(pool.log_scores, oracles.pair_lookup(pool.table), pool.count, log=log, **options)

    return choose(PCMMR(**options), pool, xp) == sorted(expected)


@pytest.mark.usefixtures("every_way")
@given(data=st.data(), options=pcmmr_options())
def test_pc_mmr_is_algorithm_1_always(xp: Library, data: st.DataObject, options: dict[str, Any]) -> None:
    """For every pool, however full of ties, and all options, the answer is that of the plain loop, bit for bit."""
    assert agrees_with_algorithm_1(xp, data.draw(xp.pools()), options)


@pytest.mark.parametrize("pool", [TIES, SILENT], ids=["all tie", "all zero"])
@pytest.mark.parametrize("options", [{}, {"exponent": 1}, {"temper": 0.0}, {"floor": 0.0}, {"chunk": 1}], ids=repr)
@pytest.mark.usefixtures("every_way")
def test_pc_mmr_is_algorithm_1_where_nothing_but_the_index_decides(
    xp: Library, pool: Pool, options: dict[str, Any]
) -> None:
    """Pools whose scores are all equal, or all minus infinity."""
    assert agrees_with_algorithm_1(xp, pool, options)


@pytest.mark.usefixtures("every_way")
def test_identical_tokens_tie_however_their_products_round() -> None:
    """Tokens 1 and 2 are identical, but their products with token 0 round apart: the first of them is kept."""
    table = np.eye(4)
    table[1, 0], table[2, 0], table[3, 0] = 0.1 + 1e-9, 0.1, 0.15

    def duplication(rows: Array, cols: Array) -> Array:
        return table[np.ix_(rows, cols)]

    duplication.identical = np.array([0, 1, 1, 3])  # type: ignore[attr-defined]

    assert PCMMR(chunk=1).select(np.log([1.0, 0.5, 0.5, 0.5]), duplication, 2).tolist() == [0, 1]


@pytest.mark.parametrize("clusters", [3, 40, None])
def test_lazy_pc_mmr_is_algorithm_1_on_a_large_pool(clusters: int | None) -> None:
    """At 700 clustered tokens, where laziness has something to skip, the answer is still the plain loop's."""
    tokens = sample(1, tokens=700, clusters=clusters, width=16, value_width=16)
    scores = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values)
    pairs = oracles.pair_lookup(oracles.duplication(tokens.keys, tokens.values))

    for count in (1, 2, 3, 78, 350, 699, 700):
        expected = oracles.pc_mmr(scores, pairs, count)
        assert sorted(PCMMR().select(scores, pairs, count).tolist()) == sorted(expected)


@pytest.mark.parametrize("worthwhile", [-1.0, 0.8], ids=["in place", "lazily"])
@pytest.mark.parametrize("options", [{}, {"penalty": 1.0}, {"penalty": 0.5, "exponent": 1}], ids=repr)
def test_a_large_chunk_penalises_by_its_closest_token_wherever_it_stands(
    worthwhile: float, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk of 700 is compared piece by piece; what an early piece has taken, no later one gives back."""
    monkeypatch.setattr(pc_mmr, "WORTHWHILE", worthwhile)
    monkeypatch.setattr(pc_mmr, "EASY", 0)
    generator = np.random.default_rng(5)
    scores = np.concatenate([np.zeros(700), -0.1 - generator.random(200)])
    table = np.eye(900)
    table[700:, :700] = 0.9 * generator.random((200, 700)) ** 40
    table[700:800, :700] /= 6  # never at the floor of a penalty of 5, while the others are, and are left out

    chosen = PCMMR(chunk=700, growth=1.0, **options).select(scores, oracles.pair_lookup(table), 760)

    expected = oracles.pc_mmr(scores, oracles.pair_lookup(table), 760, chunk=700, growth=1.0, **options)
    assert sorted(chosen.tolist()) == sorted(expected)


def test_lazy_pc_mmr_asks_for_fewer_pairs_than_algorithm_1() -> None:
    """Candidates that never come near the top of the list are never compared with what was chosen.

    Pairs are counted once each: a block may hold a row more than once, to round its size up.
    """
    tokens = sample(2, tokens=2000, clusters=150, width=32, value_width=16, noise=0.5)
    scores = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values)
    pairs = oracles.lazy_duplication(tokens.keys, tokens.values)
    asked = {"plain": 0, "lazy": 0}

    def counting(name: str) -> oracles.Table:
        def count(rows: Array, cols: Array) -> oracles.Floats:
            asked[name] += len(set(rows.tolist())) * len(set(cols.tolist()))
            return pairs(rows, cols)

        return count

    plain = oracles.pc_mmr(scores, counting("plain"), 200)
    lazy = PCMMR().select(scores, counting("lazy"), 200)

    assert sorted(lazy.tolist()) == sorted(plain)
    assert asked["lazy"] < 0.5 * asked["plain"]


@given(data=st.data(), tradeoff=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
def test_mmr_is_the_greedy_rule_of_section_4_3(xp: Library, data: st.DataObject, tradeoff: float) -> None:
    """Each choice is the best left, by magnitude against the largest duplication of what is chosen."""
    pool = data.draw(xp.pools())
    scores = xp.numpy(xp.namespace.exp(xp.array(pool.log_scores)))
    expected = oracles.mmr(scores, pool.table, pool.count, tradeoff)

    assert choose(MMR(tradeoff=tradeoff), pool, xp) == sorted(expected)


@given(data=st.data())
def test_top_k_keeps_the_largest_and_among_equals_the_first(xp: Library, data: st.DataObject) -> None:
    """Without duplication in the rule, the order is by score and then by index."""
    pool = data.draw(xp.pools())

    assert choose(TopK(), pool, xp) == sorted(oracles.top_k(pool.log_scores, pool.count))


@every_strategy
@given(data=st.data())
def test_a_strategy_returns_the_promised_number_of_distinct_positions(
    xp: Library,
    strategy: Strategy,
    data: st.DataObject,
) -> None:
    """`count` different indices within range, whatever the scores."""
    xp.skip_if_operations_are_compiled()
    pool = data.draw(xp.pools())

    chosen = choose(strategy, pool, xp)

    assert len(set(chosen)) == len(chosen) == pool.count
    assert set(chosen) <= set(range(len(pool.scores)))


@every_strategy
@given(data=st.data())
def test_selections_are_nested_in_their_size(xp: Library, strategy: Strategy, data: st.DataObject) -> None:
    """All three rules are greedy: a larger budget only adds tokens."""
    xp.skip_if_operations_are_compiled()
    pool = data.draw(xp.pools(max_tokens=12))

    sizes = range(1, len(pool.scores) + 1)
    chosen = [set(choose(strategy, dataclasses.replace(pool, count=count), xp)) for count in sizes]

    assert all(small < large for small, large in pairwise(chosen))


@given(pool=pools())
def test_pc_mmr_without_penalty_is_top_k(pool: Pool) -> None:
    """With lambda = 0 nothing is ever lowered."""
    pairs = oracles.pair_lookup(pool.table)

    chosen = PCMMR(penalty=0.0).select(pool.log_scores, pairs, pool.count)

    assert sorted(chosen.tolist()) == sorted(oracles.top_k(pool.log_scores, pool.count))


@given(pool=pools())
def test_mmr_that_weighs_magnitude_only_is_top_k(pool: Pool) -> None:
    """With the tradeoff at one the duplication has no weight."""
    scores = np.exp(pool.log_scores)

    chosen = MMR(tradeoff=1.0).select(pool.log_scores, oracles.pair_lookup(pool.table), pool.count)

    assert sorted(chosen.tolist()) == sorted(oracles.top_k(scores, pool.count))


def test_penalties_of_successive_chunks_multiply() -> None:
    """Token 3 is half like token 0 and half like token 1: lambda 1 leaves it a quarter, behind token 2."""
    table = np.eye(4)
    table[3, [0, 1]] = table[[0, 1], 3] = 0.5
    scores = np.log([1.0, 0.9, 0.3, 0.8])

    chosen = PCMMR(chunk=1, growth=1.0, penalty=1.0).select(scores, oracles.pair_lookup(table), 3)

    assert sorted(chosen.tolist()) == [0, 1, 2]


def test_a_penalty_takes_the_largest_duplication_within_a_chunk() -> None:
    """The same two halves met in one chunk leave token 3 a half, ahead of token 2."""
    table = np.eye(4)
    table[3, [0, 1]] = table[[0, 1], 3] = 0.5
    scores = np.log([1.0, 0.9, 0.3, 0.8])

    chosen = PCMMR(chunk=2, growth=1.0, penalty=1.0).select(scores, oracles.pair_lookup(table), 3)

    assert sorted(chosen.tolist()) == [0, 1, 3]


def test_scores_far_below_the_range_of_exponentials_are_still_told_apart() -> None:
    """Logarithms of -900 and -1000 both stand for zero in float64; as logarithms they have an order."""
    scores = np.array([0.0, -1000.0, -900.0, -1100.0])

    for strategy in (TopK(), PCMMR()):
        chosen = strategy.select(scores, oracles.pair_lookup(np.eye(4)), 3)
        assert sorted(chosen.tolist()) == [0, 1, 2]


WRONG_VALUES = [
    (PCMMR, "chunk", 0), (PCMMR, "chunk", -2), (PCMMR, "growth", 0.5), (PCMMR, "growth", float("nan")),
    (PCMMR, "growth", float("inf")), (PCMMR, "penalty", -1.0), (PCMMR, "penalty", float("nan")),
    (PCMMR, "penalty", float("inf")), (PCMMR, "floor", -0.1), (PCMMR, "floor", 1.5), (PCMMR, "floor", float("nan")),
    (PCMMR, "exponent", 3), (PCMMR, "exponent", 0), (PCMMR, "temper", -1.0),
    (PCMMR, "temper", float("nan")), (PCMMR, "temper", float("inf")), (MMR, "tradeoff", -0.1), (MMR, "tradeoff", 1.1),
    (MMR, "tradeoff", float("nan")),
]  # fmt: skip
WRONG_TYPES = [
    (PCMMR, "chunk", 2.5), (PCMMR, "chunk", "2"), (PCMMR, "chunk", True), (PCMMR, "growth", "2"),
    (PCMMR, "penalty", None), (PCMMR, "floor", 1j), (PCMMR, "temper", "1"), (MMR, "tradeoff", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "option", "value", "error"),
    [(*case, ValueError) for case in WRONG_VALUES] + [(*case, TypeError) for case in WRONG_TYPES],
    ids=lambda x: getattr(x, "__name__", repr(x)),
)
def test_a_strategy_refuses_a_wrong_option_when_it_is_made(
    kind: type, option: str, value: object, error: type[Exception]
) -> None:
    """The message names the option, what it was and what is allowed; nothing waits until the first call."""
    with pytest.raises(error) as caught:
        kind(**{option: value})

    message = str(caught.value)
    assert f"`{option}`" in message
    assert repr(value) in message
    assert "expected" in message


@every_strategy
def test_a_strategy_is_frozen_and_takes_keywords_only(strategy: Strategy) -> None:
    """Options do not change once made, and a bare number does not say which option it is."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        strategy.chunk = 5
    with pytest.raises(TypeError):
        type(strategy)(1)
    assert strategy == type(strategy)()


def test_the_defaults_are_the_papers() -> None:
    """Appendix E's bold values: b = 2, g = 2, lambda = 5, floor 0.01, squared similarity, untempered."""
    assert PCMMR() == PCMMR(chunk=2, growth=2.0, penalty=5.0, floor=0.01, exponent=2, temper=1.0)
    assert MMR() == MMR(tradeoff=0.5)

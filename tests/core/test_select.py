"""`select_tokens`: what holds for every input, and that each option reaches the formula it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis import given
from hypothesis import strategies as st

from iwp_core import MMR, PCMMR, Strategy, TopK, information_duplication, information_magnitude, select_tokens
from tests import oracles
from tests.libraries import Array, Library
from tests.strategies import Tokens, fixed_samples, sample

STRATEGIES = [TopK(), PCMMR(), MMR()]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)


def budgets(xp: Library) -> st.SearchStrategy[float]:
    """Generate counts and shares, or a few of each where every number kept is a shape to compile."""
    if xp.slow_to_compile:
        return st.sampled_from([3, 5, 0.25])
    return st.integers(1, 30) | st.floats(0.0, 1.0, exclude_min=True)


def choose(xp: Library, tokens: Tokens, budget: float, **options: object) -> list[int]:
    """Select from one sample in float64 and return the positions."""
    keys, values, queries = xp.arrays(tokens)
    return list(xp.numpy(select_tokens(keys, values, queries, budget, **options)))


@every_strategy
@given(data=st.data())
def test_kept_positions_are_ascending_distinct_in_range_and_as_many_as_promised(
    xp: Library,
    strategy: Strategy,
    data: st.DataObject,
) -> None:
    """The contract's promise on the returned positions."""
    xp.skip_if_operations_are_compiled()
    tokens, budget = data.draw(xp.samples()), data.draw(budgets(xp))

    kept = choose(xp, tokens, budget, strategy=strategy)

    assert len(kept) == oracles.number_kept(budget, tokens.count)
    assert all(a < b for a, b in pairwise(kept))
    assert kept[0] >= 0
    assert kept[-1] < tokens.count


@given(data=st.data())
def test_the_default_is_the_papers_method(xp: Library, data: st.DataObject) -> None:
    """Equation 10, equation 12 and algorithm 1 with their defaults, from the slow reading."""
    tokens, budget = data.draw(xp.samples()), data.draw(budgets(xp))
    count = oracles.number_kept(budget, tokens.count)

    expected = oracles.select_tokens(tokens.queries, tokens.keys, tokens.values, count)

    assert choose(xp, tokens, budget) == list(expected)


@pytest.mark.parametrize("magnitude", oracles.MAGNITUDES)
@pytest.mark.parametrize("similarity", oracles.SIMILARITIES)
@pytest.mark.parametrize("kernel", oracles.KERNELS)
@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
def test_every_option_reaches_its_formula(magnitude: str, similarity: str, kernel: str, heads: str) -> None:
    """All combinations of metrics, kernel and head mean select what the slow reading selects.

    On NumPy only: what an option computes is compared on every library in test_magnitude and test_duplication.
    """
    for seed in range(3):
        tokens = sample(seed, tokens=24, clusters=5)
        scores = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values, magnitude, kernel, heads)
        table = oracles.duplication(tokens.keys, tokens.values, similarity, kernel, tokens.hidden)
        expected = oracles.pc_mmr(scores, oracles.pair_lookup(table), 9)

        kept = select_tokens(
            tokens.keys,
            tokens.values,
            tokens.queries,
            9,
            magnitude=magnitude,
            similarity=similarity,
            hidden=tokens.hidden,
            kernel=kernel,
            heads=heads,
        )
        assert kept.tolist() == sorted(expected)


@given(data=st.data())
def test_what_each_query_scores_reaches_the_strategy(xp: Library, data: st.DataObject) -> None:
    """``heads="softmax_mean_per_query"`` changes the magnitude, and nothing else."""
    tokens, budget = data.draw(xp.samples()), data.draw(budgets(xp))
    text = tokens.queries[:, None, :] * np.asarray([1.0, -0.5, 2.0])[:, None]
    scores = oracles.log_magnitude_of_each_query(text, tokens.keys, tokens.values)
    table = oracles.pair_lookup(oracles.duplication(tokens.keys, tokens.values))
    expected = oracles.pc_mmr(scores, table, oracles.number_kept(budget, tokens.count))

    keys, values, _ = xp.arrays(tokens)
    kept = select_tokens(keys, values, xp.array(text), budget, heads="softmax_mean_per_query")

    assert xp.numpy(kept).tolist() == sorted(expected)


@given(data=st.data())
def test_mmr_and_top_k_are_the_oracles_from_end_to_end(xp: Library, data: st.DataObject) -> None:
    """The other two strategies see the same magnitude and the same duplication."""
    tokens = data.draw(xp.samples())
    count = oracles.number_kept(data.draw(budgets(xp)), tokens.count)
    scores = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values)
    table = oracles.duplication(tokens.keys, tokens.values)

    assert choose(xp, tokens, count, strategy=TopK()) == sorted(oracles.top_k(scores, count))
    assert choose(xp, tokens, count, strategy=MMR()) == sorted(oracles.mmr(np.exp(scores), table, count))


@every_strategy
@given(data=st.data())
def test_permuted_tokens_give_the_permuted_answer(xp: Library, strategy: Strategy, data: st.DataObject) -> None:
    """Without ties a position means nothing to the rule."""
    xp.skip_if_operations_are_compiled()
    tokens = data.draw(xp.samples())
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(tokens.count)

    kept = choose(xp, tokens, 0.4, strategy=strategy)
    moved = choose(xp, tokens.at(order), 0.4, strategy=strategy)

    assert sorted(order[moved]) == kept


@every_strategy
@given(seed=st.integers(0, 2**32 - 1))
def test_queries_and_keys_rotated_together_change_nothing(xp: Library, strategy: Strategy, seed: int) -> None:
    """Scores and similarities read products and distances only."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(seed, clusters=4)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    keys, values, queries = xp.arrays(tokens)
    turned = [xp.array(x @ rotation) for x in (tokens.keys, tokens.queries)]

    kept = select_tokens(keys, values, queries, 5, strategy=strategy)
    again = select_tokens(turned[0], values, turned[1], 5, strategy=strategy)

    np.testing.assert_array_equal(xp.numpy(again), xp.numpy(kept))


@every_strategy
@given(data=st.data())
def test_selections_are_nested_in_the_budget(xp: Library, strategy: Strategy, data: st.DataObject) -> None:
    """A larger budget keeps what the smaller one kept."""
    xp.skip_if_operations_are_compiled()
    tokens = data.draw(xp.samples())
    small, large = sorted(oracles.number_kept(data.draw(budgets(xp)), tokens.count) for _ in range(2))

    assert set(choose(xp, tokens, small, strategy=strategy)) <= set(choose(xp, tokens, large, strategy=strategy))


@every_strategy
@pytest.mark.parametrize("leading", [(3,), (2, 2), (1,)], ids=str)
def test_each_row_of_a_batch_is_its_own_call(xp: Library, strategy: Strategy, leading: tuple[int, ...]) -> None:
    """Leading axes are batches: stacking samples changes no sample's answer."""
    batch = [sample(seed, clusters=4) for seed in range(int(np.prod(leading)))]

    stacked = [
        xp.array(
            np.stack([getattr(tokens, name) for tokens in batch]).reshape(*leading, *getattr(batch[0], name).shape)
        )
        for name in ("keys", "values", "queries")
    ]
    kept = xp.numpy(select_tokens(*stacked, 5, strategy=strategy))

    assert kept.shape == (*leading, 5)
    assert kept.reshape(-1, 5).tolist() == [choose(xp, tokens, 5, strategy=strategy) for tokens in batch]


def test_arrays_without_a_head_axis_mean_one_head(xp: Library) -> None:
    """Keys (N, D), values (N, Dv) and queries (D,) or (T, D) equal one head of one query head."""
    xp.skip_if_operations_are_compiled()
    tokens = sample(3, heads=1, group=1)
    text = np.stack([tokens.queries[0] + 0.5, tokens.queries[0] - 0.5])
    keys, values, queries = (x[0, ...] for x in xp.arrays(tokens))

    expected = choose(xp, tokens, 5)

    assert list(xp.numpy(select_tokens(keys, values, queries, 5))) == expected
    assert list(xp.numpy(select_tokens(keys, values, xp.array(text), 5))) == expected


def test_magnitude_keys_decide_the_magnitude_and_keys_the_duplication(xp: Library) -> None:
    """Keys without and with rotary embedding have one duty each (table E.2)."""
    xp.skip_if_operations_are_compiled()
    tokens, other = sample(4, tokens=20, clusters=4), sample(5, tokens=20)
    scores = oracles.log_magnitude(tokens.queries, other.keys, tokens.values)
    pairs = oracles.pair_lookup(oracles.duplication(tokens.keys, tokens.values))

    kept = choose(xp, tokens, 8, magnitude_keys=xp.array(other.keys))

    assert kept == sorted(oracles.pc_mmr(scores, pairs, 8))
    assert kept != choose(xp, tokens, 8)


@pytest.mark.parametrize("metric", oracles.QUERYLESS)
def test_no_queries_are_needed_where_none_are_read(xp: Library, metric: str) -> None:
    """Metrics of keys and values alone take queries=None."""
    tokens = sample(6)
    keys, values, _ = xp.arrays(tokens)

    kept = select_tokens(keys, values, None, 5, magnitude=metric)

    assert list(xp.numpy(kept)) == choose(xp, tokens, 5, magnitude=metric)


@dataclass(frozen=True)
class LastTokens:
    """A strategy of the user's own: the last tokens, latest first; it notes what it was given."""

    seen: list[tuple[Array, Array, int]]

    def select(self, log_magnitude: Array, duplication: Callable[[Array, Array], Array], count: int) -> Array:
        """Return the last `count` positions, descending."""
        last = log_magnitude.shape[0] - 1
        positions = array_namespace(log_magnitude).arange(last + 1)
        self.seen.append((log_magnitude, duplication(positions[:3], positions[1:3]), count))
        return (last - positions)[:count]


def test_a_users_strategy_gets_scores_pairs_and_count_and_its_answer_is_sorted(xp: Library) -> None:
    """The protocol: log-magnitudes (N,), a block of duplications for two index vectors, and M."""
    tokens = sample(7)
    keys, values, queries = xp.arrays(tokens)
    strategy = LastTokens(seen=[])

    kept = choose(xp, tokens, 4, strategy=strategy)

    scores, block, count = strategy.seen[0]
    magnitude = xp.numpy(information_magnitude(keys, values, queries))
    whole = xp.numpy(information_duplication(keys, values))
    assert kept == [8, 9, 10, 11]
    assert count == 4
    np.testing.assert_allclose(np.exp(xp.numpy(scores)), magnitude, atol=1e-12)
    np.testing.assert_allclose(xp.numpy(block), whole[:3, 1:3], atol=1e-12)


@dataclass(frozen=True)
class Answers:
    """A strategy that always gives the same answer, right or wrong."""

    positions: Sequence[float]

    def select(self, log_magnitude: Array, *_: object) -> Array:
        """Return the positions, whatever is asked."""
        return array_namespace(log_magnitude).asarray(self.positions)


@pytest.mark.parametrize(
    ("positions", "error"),
    [
        ([-1, 0, 2], ValueError),
        ([0, 2, 12], ValueError),
        ([0, 2, 2], ValueError),
        ([0, 2], ValueError),
        ([[0, 1, 2]], ValueError),
        ([0.0, 1.0, 2.0], TypeError),
    ],
    ids=["negative", "beyond the tokens", "repeated", "too few", "two dimensions", "fractions"],
)
def test_a_strategys_wrong_answer_is_refused(xp: Library, positions: Sequence[float], error: type[Exception]) -> None:
    """Positions are distinct integers from 0 to N - 1, as many as were asked for."""
    keys, values, queries = xp.arrays(sample(7))
    assert keys.shape[-2] == 12

    with pytest.raises(error, match="`strategy` returned"):
        select_tokens(keys, values, queries, 3, strategy=Answers(positions))


@pytest.mark.parametrize("base", [PCMMR, MMR, TopK])
def test_a_strategy_made_from_one_of_the_library_is_checked_as_any(base: type) -> None:
    """What chooses is its own `select`, whatever it inherits."""
    tokens = sample(7)

    @dataclass(frozen=True, kw_only=True)
    class Twice(base):  # type: ignore[misc]
        def select(self, *_: object) -> Array:
            return np.asarray([0, 2, 2])

    with pytest.raises(ValueError, match="`strategy` returned repeated"):
        select_tokens(tokens.keys, tokens.values, tokens.queries, 3, strategy=Twice())


@every_strategy
def test_the_answer_is_int64_in_the_library_of_the_keys(xp: Library, strategy: Strategy) -> None:
    """Positions can index the arrays that they came from."""
    kept = select_tokens(*xp.arrays(sample(8)), 3, strategy=strategy)

    assert isinstance(kept, xp.array_type)
    assert kept.dtype == xp.dtype("int64")


def test_without_64_bit_integers_jax_gets_int32() -> None:
    """JAX in its default mode has no int64, and says so by a warning that must not appear."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    tokens = sample(9)

    with jax.enable_x64(False):
        arrays = [jax.numpy.asarray(x, dtype="float32") for x in (tokens.keys, tokens.values, tokens.queries)]
        kept = select_tokens(*arrays, 5)

    assert kept.dtype == "int32"
    assert kept.tolist() == list(oracles.select_tokens(tokens.queries, tokens.keys, tokens.values, 5))


@every_strategy
@pytest.mark.parametrize("name", ["device1", "no_float64"])
def test_the_answer_lies_on_the_device_of_the_keys(strategy: Strategy, name: str) -> None:
    """array-api-strict refuses to mix its pretended devices, so nothing is made on another one on the way."""
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    device = strict.Device(name)
    tokens = sample(10)
    keys, values, queries = (
        strict.asarray(x, dtype=strict.float32, device=device) for x in (tokens.keys, tokens.values, tokens.queries)
    )

    kept = select_tokens(keys, values, queries, 5, strategy=strategy)

    assert kept.device == device
    assert kept.shape == (5,)


@every_strategy
def test_the_inputs_are_only_read(strategy: Strategy) -> None:
    """Read-only arrays are good enough, so nothing is written into the caller's."""
    arrays = sample(11).keys, sample(11).values, sample(11).queries
    for array in arrays:
        array.flags.writeable = False

    assert select_tokens(*arrays, 5, strategy=strategy).shape == (5,)


@given(tokens=fixed_samples(), budget=st.sampled_from([3, 5, 0.25]))
def test_the_same_call_gives_the_same_answer(xp: Library, tokens: Tokens, budget: float) -> None:
    """Nothing is random."""
    xp.skip_if_operations_are_compiled()
    assert choose(xp, tokens, budget) == choose(xp, tokens, budget)


def test_unchecked_data_are_selected_from_alike(xp: Library) -> None:
    """validate=False leaves out the checks that read data, and no more."""
    assert choose(xp, sample(12), 5, validate=False) == choose(xp, sample(12), 5)


def test_all_tokens_are_kept_by_a_full_budget(xp: Library) -> None:
    """A share of one is the identity, and so is a count beyond the tokens there are."""
    for budget in (1.0, 12, 10**6):
        assert choose(xp, sample(13), budget) == list(range(12))


@pytest.mark.parametrize("narrow", ["keys", "values", "queries"])
def test_inputs_of_two_precisions_are_computed_in_the_wider(xp: Library, narrow: str) -> None:
    """One array in float32 among float64 ones changes nothing but its own roundings."""
    tokens = sample(3)
    rounded = {name: getattr(tokens, name) for name in ("keys", "values", "queries")}
    rounded[narrow] = rounded[narrow].astype("float32")
    arrays = {name: xp.array(array, str(array.dtype)) for name, array in rounded.items()}
    widened = {name: xp.array(array.astype("float64")) for name, array in rounded.items()}

    assert (
        xp.numpy(select_tokens(**arrays, budget=0.4)).tolist()
        == xp.numpy(select_tokens(**widened, budget=0.4)).tolist()
    )
    assert (
        information_magnitude(*(arrays[name] for name in ("keys", "values", "queries"))).dtype == xp.namespace.float64
    )

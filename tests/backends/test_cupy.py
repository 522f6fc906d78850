"""The CuPy backend against the float64 oracle: on a CUDA device, and with its kernels run on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from iwp_core import MMR, PCMMR, TopK, information_magnitude, select_tokens
from iwp_core.comparison import Duplication
from iwp_core.kernels import FUNCTIONS
from iwp_core.testing import check_case, conformance_cases
from tests import oracles
from tests.backends.cupy_samples import (
    CuPy,
    Floats,
    dtypes,
    kept_by_the_oracle,
    log_magnitude,
    rounded,
)
from tests.strategies import Tokens, pcmmr_options, sample, shaped, spoiled


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_backend_conforms(cp: CuPy, function: str) -> None:
    """Every function answers as the reference does, whether the backend replaces it or not."""
    cases = list(conformance_cases(lambda x: cp.array(x, "float64"), functions=[function]))

    assert cases
    for case in cases:
        check_case(case, tolerance=1e-10)


SHAPES: dict[str, dict[str, Any]] = {
    "one token": {"tokens": 1},
    "two tokens": {"tokens": 2, "heads": 1, "group": 1},
    "one channel": {"tokens": 9, "width": 1, "value_width": 1},
    "less than a tile": {"tokens": 40, "width": 15, "value_width": 17},
    "a tile": {"tokens": 64, "width": 16, "value_width": 16},
    "a tile and one": {"tokens": 65, "width": 33, "value_width": 5, "heads": 3},
    "two strips and some": {"tokens": 259, "heads": 2, "group": 9, "width": 24, "value_width": 40},
    "key bias": {"tokens": 150, "width": 32, "value_width": 32, "key_bias": 300.0, "query_bias": 10.0},
}


@dtypes
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_oracles_tokens_are_kept(cp: CuPy, shape: dict[str, Any], dtype: str) -> None:
    """From the same rounded inputs, for one token, some, and all but one."""
    tokens = sample(5, **shape, clusters=max(1, shape["tokens"] // 4))

    for count in {1, (tokens.count + 3) // 4, max(1, tokens.count - 1)}:
        np.testing.assert_array_equal(cp.select(tokens, count, dtype), kept_by_the_oracle(tokens, count, dtype))


@pytest.mark.parametrize(("dtype", "share"), [("float16", 0.97), ("float32", 0.995), ("float64", 1.0)])
@pytest.mark.parametrize("key_bias", [0.0, 300.0])
def test_of_many_tokens_the_promised_share_is_the_oracles(cp: CuPy, key_bias: float, dtype: str, share: float) -> None:
    """With chunks above the narrow and the wide block of the comparing kernel."""
    tokens = sample(
        7, tokens=700, width=64, value_width=48, clusters=60, noise=0.5, key_bias=key_bias, query_bias=key_bias / 30
    )

    kept = cp.select(tokens, 155, dtype)

    assert len(set(kept) & set(kept_by_the_oracle(tokens, 155, dtype))) >= share * 155


OPTIONS: list[dict[str, Any]] = [
    {"exponent": 1},
    {"penalty": 1.0, "floor": 0.0},
    {"penalty": 20.0, "floor": 0.3},
    {"chunk": 1, "growth": 1.0},
    {"chunk": 7, "growth": 1.5},
    {"temper": 0.0},
    {"temper": 0.25},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_each_option_of_pc_mmr_changes_the_choice_as_the_oracles(cp: CuPy, options: dict[str, Any]) -> None:
    """Each changes the answer here, so that one not passed on would be seen."""
    tokens = sample(11, tokens=60, clusters=20, noise=0.5)
    expected = kept_by_the_oracle(tokens, 25, **options)

    assert expected != kept_by_the_oracle(tokens, 25)
    np.testing.assert_array_equal(cp.select(tokens, 25, strategy=PCMMR(**options)), expected)


@given(seed=st.integers(0, 2**32 - 1), kinds=st.integers(1, 30), count=st.integers(1, 40), options=pcmmr_options())
def test_every_option_of_pc_mmr_with_identical_tokens(
    cp: CuPy, seed: int, kinds: int, count: int, options: dict[str, Any]
) -> None:
    """Algorithm 1 line by line, where many tokens tie."""
    # With these, what is left of a copy is 1 - 1: rounding alone would decide.
    assume(options.get("penalty") != 1.0 or options.get("floor") != 0.0)
    tokens = sample(seed, tokens=kinds).at(np.random.default_rng(seed).integers(kinds, size=40))

    kept = cp.select(tokens, count, strategy=PCMMR(**options))

    np.testing.assert_array_equal(kept, kept_by_the_oracle(tokens, count, **options))


@dtypes
@pytest.mark.parametrize("count", [3, 44, 200, 360, 400])
def test_of_identical_tokens_the_first_are_kept(cp: CuPy, count: int, dtype: str) -> None:
    """Wherever in a block they fall."""
    kind = np.random.default_rng(0).integers(7, size=400)
    tokens = sample(0, tokens=7, width=24, value_width=20, key_bias=30.0).at(kind)

    kept = cp.select(tokens, count, dtype)

    assert len(kept) == count
    for which in range(7):
        members = np.flatnonzero(kind == which)
        np.testing.assert_array_equal(np.intersect1d(kept, members), members[: np.isin(members, kept).sum()])


def order_of_choice(
    cp: CuPy, scores: Floats, duplication: Duplication, sizes: list[int], dtype: str = "float64"
) -> list[int]:
    """Run the kernel of algorithm 1 alone, with the paper's constants."""
    arguments = (cp.array(scores, dtype), duplication, sizes)
    options = {"penalty": 5.0, "floor": 0.01, "exponent": 2}
    kernel = cp.kernels["progressive_chunked_mmr"]
    assert kernel.supports(*arguments, **options)
    order = cp.numpy(kernel.run(*arguments, **options))
    np.testing.assert_array_equal(cp.numpy(arguments[0]), scores, err_msg="the caller's scores were written to")
    return [int(i) for i in order]


@pytest.mark.parametrize("kernel", oracles.KERNELS)
@pytest.mark.parametrize("metric", oracles.SIMILARITIES)
def test_every_similarity_in_the_order_of_choice(cp: CuPy, metric: str, kernel: str) -> None:
    """Not only which tokens, but when: as the function that the kernel replaces."""
    tokens = sample(3, tokens=150, heads=3, width=7, value_width=5, clusters=20)
    scores = np.log(np.random.default_rng(3).random(150))
    arrays = (cp.array(x) for x in (tokens.keys, tokens.values, tokens.hidden))
    duplication = Duplication(*arrays, metric=metric, kernel=kernel)
    table = oracles.duplication(tokens.keys, tokens.values, metric, kernel, tokens.hidden)

    order = order_of_choice(cp, scores, duplication, [2, 4, 8, 16, 32, 28])

    assert order == oracles.pc_mmr(scores, oracles.pair_lookup(table), 90)


def test_a_score_of_minus_infinity_is_no_token_taken(cp: CuPy) -> None:
    """Where all scores are -inf, or become so, every token is still chosen once, lower positions first."""
    tokens = sample(1, tokens=70)
    duplication = Duplication(cp.array(tokens.keys), cp.array(tokens.values), None, metric="dual", kernel="exponential")

    assert order_of_choice(cp, np.full(70, -np.inf), duplication, [2, 4, 60, 4]) == list(range(70))


def test_zero_and_minus_zero_tie(cp: CuPy) -> None:
    """They are equal, so the lower position comes first."""
    tokens = sample(1, tokens=70)
    duplication = Duplication(cp.array(tokens.keys), cp.array(tokens.values), None, metric="dual", kernel="exponential")

    assert order_of_choice(cp, np.tile([-0.0, 0.0], 35), duplication, [70]) == list(range(70))


@dtypes
def test_zero_vectors_are_similar_to_nothing(cp: CuPy, dtype: str) -> None:
    """In all heads or in one: they score lowest, are never penalised for it, and among nothing else all tie."""
    tokens = sample(2, tokens=60, clusters=9, width=8)
    tokens.values[:, ::3] = 0.0
    tokens.values[0, 1::3] = 0.0

    for count in (25, 50):
        np.testing.assert_array_equal(cp.select(tokens, count, dtype), kept_by_the_oracle(tokens, count, dtype))
    tokens.values[:] = 0.0
    np.testing.assert_array_equal(cp.select(tokens, 11, dtype), kept_by_the_oracle(tokens, 11, dtype))


TOLERANCE = {"float16": 1e-5, "float32": 1e-5, "float64": 1e-11}


@dtypes
@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
@pytest.mark.parametrize("kernel", oracles.KERNELS)
@pytest.mark.parametrize("metric", oracles.MAGNITUDES)
def test_every_magnitude_is_the_oracles(cp: CuPy, metric: str, kernel: str, heads: str, dtype: str) -> None:
    """As logarithms, with logits in the hundreds, one token without value, and more queries than one pass reads."""
    tokens = sample(4, tokens=131, group=11, width=19, value_width=6, key_bias=100.0, query_bias=20.0)
    tokens.values[:, 7] = 0.0
    keys, values, queries = cp.arrays(tokens, dtype)
    options = {"metric": metric, "kernel": kernel, "heads": heads}
    magnitude = cp.kernels["log_magnitude"]
    query = queries if metric in {"dual", "kernel"} else None

    assert magnitude.supports(keys, values, query, **options)
    ours = magnitude.run(keys, values, query, **options)

    assert ours.dtype == ("float64" if dtype == "float64" else "float32")
    expected = log_magnitude(rounded(tokens, dtype), **options)
    np.testing.assert_allclose(cp.numpy(ours), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
def test_a_head_without_values_adds_nothing(cp: CuPy, heads: str) -> None:
    """Its sum is zero, and it is not divided by that."""
    tokens = sample(12, tokens=40)
    tokens.values[0] = 0.0
    keys, values, queries = cp.arrays(tokens, "float64")

    ours = cp.numpy(information_magnitude(keys, values, queries, heads=heads))

    np.testing.assert_allclose(ours, np.exp(log_magnitude(tokens, heads=heads)), atol=1e-12)


@dtypes
@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_equal_scores_are_all_the_largest(cp: CuPy, factor: float, dtype: str) -> None:
    """Of identical tokens, with or without value, each has magnitude 1."""
    tokens = sample(6, tokens=1).at(np.zeros(300, dtype=np.intp))
    keys, values, queries = cp.arrays(tokens, dtype)

    for heads in ("mean", "softmax_mean"):
        np.testing.assert_array_equal(
            cp.numpy(information_magnitude(keys, factor * values, queries, heads=heads)), np.ones(300)
        )


@pytest.mark.parametrize(("dtype", "power"), [("float32", 30), ("float64", 150), ("float64", 250)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_lengths_whose_squares_leave_the_range_are_handled(cp: CuPy, dtype: str, power: int, sign: int) -> None:
    """A common factor on all values cancels from magnitude and duplication."""
    tokens = sample(1, tokens=90, clusters=12, width=8, value_width=8)
    scaled = Tokens(
        keys=tokens.keys, values=tokens.values * 10.0 ** (sign * power), queries=tokens.queries, hidden=tokens.hidden
    )

    np.testing.assert_array_equal(cp.select(scaled, 30, dtype), kept_by_the_oracle(tokens, 30))


@pytest.mark.parametrize(
    "extreme", [{"spread": 300.0}, {"key_bias": 1e4}, {"spread": 1e-6}, {"width": 1, "value_width": 1}], ids=repr
)
@dtypes
@pytest.mark.parametrize("kernel", oracles.KERNELS)
def test_nothing_overflows_or_turns_into_nan(cp: CuPy, extreme: dict[str, Any], kernel: str, dtype: str) -> None:
    """Magnitudes stay within [0, 1] at any scale that the dtype can hold, and M distinct tokens are kept."""
    tokens = sample(0, tokens=30, **extreme)
    keys, values, queries = cp.arrays(tokens, dtype)

    for metric in oracles.MAGNITUDES:
        for heads in ("mean", "softmax_mean"):
            options = {"metric": metric, "kernel": kernel, "heads": heads}
            magnitude = cp.numpy(information_magnitude(keys, values, queries, **options))
            assert ((magnitude >= 0.0) & (magnitude <= 1.0)).all()
    kept = cp.select(tokens, 13, dtype, kernel=kernel)
    assert len(set(kept)) == 13


def test_every_float16_is_read_exactly(cp: CuPy) -> None:
    """All positive finite half-precision numbers in order, subnormal ones too: each one larger than the one before."""
    halves = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16)
    keys = cp.array(halves.reshape(1, -1, 1))
    options = {"metric": "raw_key_norm", "kernel": "linear", "heads": "mean"}

    scaled = cp.numpy(cp.kernels["log_magnitude"].run(keys, keys, None, **options))

    expected = halves.astype(np.float64)
    smallest, largest = expected[0], expected[-1]
    np.testing.assert_allclose(scaled, oracles.log((expected - smallest) / (largest - smallest)), rtol=1e-6, atol=1e-7)


@dtypes
def test_views_are_read_where_they_lie(cp: CuPy, dtype: str) -> None:
    """Token-major memory, a part of a larger array, reversed channels: the same tokens."""
    tokens = sample(8, tokens=100, heads=3, width=8, value_width=6, clusters=20)
    keys, values, queries = cp.arrays(tokens, dtype)
    token_major = cp.array(tokens.keys.transpose(1, 0, 2).copy(), dtype).transpose(1, 0, 2)
    wide = np.full((3, 100, 13), 9.0)
    wide[..., 4:10] = tokens.values[..., ::-1]
    part = cp.array(wide, dtype)[..., 9:3:-1]

    kept = select_tokens(token_major, part, queries, 30)

    np.testing.assert_array_equal(cp.numpy(kept), cp.numpy(select_tokens(keys, values, queries, 30)))
    np.testing.assert_array_equal(cp.numpy(kept), kept_by_the_oracle(tokens, 30, dtype))


@pytest.mark.parametrize("strategy", [TopK(), MMR()], ids=repr)
def test_other_strategies_run_too(cp: CuPy, strategy: Any) -> None:
    """They read the kernels' magnitudes and the reference's duplications."""
    tokens = sample(9, tokens=40, clusters=8)
    log_scores = log_magnitude(tokens)
    expected = (
        oracles.top_k(log_scores, 9)
        if isinstance(strategy, TopK)
        else oracles.mmr(np.exp(log_scores), oracles.duplication(tokens.keys, tokens.values), 9)
    )

    np.testing.assert_array_equal(cp.select(tokens, 9, strategy=strategy), np.sort(expected))


def test_a_duplication_of_ones_own_is_left_to_the_reference(cp: CuPy) -> None:
    """The kernels read tokens, so a callable that answers from a table is not theirs."""
    kernel = cp.kernels["progressive_chunked_mmr"]
    options = {"penalty": 5.0, "floor": 0.01, "exponent": 2}

    assert not kernel.supports(cp.array(np.zeros(3)), lambda rows, cols: rows, [2], **options)


@pytest.mark.parametrize("mixed", [("float16", "float32"), ("float32", "float16"), ("float64", "float32")])
def test_keys_and_values_may_differ_in_dtype(cp: CuPy, mixed: tuple[str, str]) -> None:
    """Each is read as it is; float64 in one makes float64 of all."""
    tokens = sample(10, tokens=80, clusters=15)
    keys, values = cp.array(tokens.keys, mixed[0]), cp.array(tokens.values, mixed[1])
    seen = [x.astype(dtype).astype(np.float64) for x, dtype in zip((tokens.keys, tokens.values), mixed, strict=True)]

    kept = cp.numpy(select_tokens(keys, values, cp.array(tokens.queries, mixed[0]), 20))

    queries = tokens.queries.astype(mixed[0]).astype(np.float64)
    np.testing.assert_array_equal(kept, oracles.select_tokens(queries, *seen, 20))


@pytest.mark.parametrize(
    ("keys", "values", "queries"),
    [
        ("float64", "float32", "float64"),
        ("float32", "float32", "float64"),
        ("float64", "int64", "float64"),
    ],
)
def test_what_is_not_of_one_precision_is_left_to_the_reference(cp: CuPy, keys: str, values: str, queries: str) -> None:
    """Called directly, as `select_tokens` brings all to one; and so are dtypes that no kernel reads."""
    arrays = (
        cp.array(np.ones((1, 3, 2)), keys),
        cp.array(np.ones((1, 3, 2)), values),
        cp.array(np.ones((1, 2)), queries),
    )
    options = {"metric": "dual", "kernel": "exponential", "heads": "mean"}

    assert not cp.kernels["log_magnitude"].supports(*arrays, **options)


BAD: dict[str, tuple[Any, ...]] = {
    "NaN": (spoiled(np.nan, 2, 6, 4), shaped(2, 6, 3), shaped(2, 4), 2),
    "infinity": (shaped(2, 6, 4), spoiled(np.inf, 2, 6, 3), shaped(2, 4), 2),
    "shapes": (shaped(2, 6, 4), shaped(2, 5, 3), shaped(2, 4), 2),
    "no tokens": (shaped(2, 0, 4), shaped(2, 0, 3), shaped(2, 4), 2),
    "integers": (np.ones((2, 6, 4), dtype=np.int64), shaped(2, 6, 3), shaped(2, 4), 2),
    "budget": (shaped(2, 6, 4), shaped(2, 6, 3), shaped(2, 4), 1.5),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_bad_input_gets_the_errors_of_numpy(cp: CuPy, arguments: tuple[Any, ...]) -> None:
    """The same type, the same words."""
    *arrays, budget = arguments
    with pytest.raises((TypeError, ValueError)) as expected:
        select_tokens(*arrays, budget)

    with pytest.raises(expected.type) as ours:
        select_tokens(*(cp.array(x) for x in arrays), budget)

    assert str(ours.value) == str(expected.value)

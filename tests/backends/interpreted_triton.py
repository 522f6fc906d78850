"""The Triton kernels in Triton's interpreter, on the CPU, held to the oracle.

Not collected by itself: the interpreter must be on before Triton is imported, so `test_triton.py` runs this file in a
process of its own (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import iwp_torch
from iwp_core import MMR, PCMMR, TopK, select_tokens, use_backend
from iwp_core.comparison import Duplication
from iwp_torch import fused, triton_factors, triton_pc_mmr, triton_places
from tests import oracles
from tests.backends.triton_samples import (
    DTYPES,
    WIDE,
    chosen_by_oracle,
    dtypes,
    read,
    tensors,
)
from tests.strategies import Tokens, sample

if not triton_factors.INTERPRETED:
    pytest.skip("runs under TRITON_INTERPRET=1, from test_triton.py", allow_module_level=True)

SHAPES: dict[str, dict[str, Any]] = {
    "one head": {"heads": 1, "group": 1},
    "grouped queries": {"heads": 2, "group": 3},
    "values wider than keys": {"width": 16, "value_width": 40},
    "widths that are no powers of two": {"width": 80, "value_width": 24},
    "widths of several blocks": {"width": 130, "value_width": 72},
    "key bias of norm 300": {"width": 64, "value_width": 64, "key_bias": 300.0, "query_bias": 3.0},
    "fewer tokens than a tile": {"tokens": 17},
    "one tile but for one token": {"tokens": 63},
    "one tile and one token": {"tokens": 65},
}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (shape, dtype)
        for number, shape in enumerate(SHAPES)
        for dtype in (DTYPES if shape == "widths of several blocks" else [DTYPES[number % 3]])
    ],
)
def test_the_whole_selection_is_the_oracles(shape: str, dtype: torch.dtype, launches: list[str]) -> None:
    """Dispatched by the type of the tensors alone, kept tokens are the paper's, for every dtype and every shape."""
    arrays = tensors(sample(1, **{"tokens": 40, **WIDE, **SHAPES[shape]}), dtype)

    kept = select_tokens(*arrays, 13)

    assert kept.dtype == torch.int64
    assert kept.tolist() == chosen_by_oracle(arrays, 13)
    assert {"log_scores", "take_best", "compare"} <= set(launches)


@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
@pytest.mark.parametrize("kernel", oracles.KERNELS)
@pytest.mark.parametrize("metric", oracles.MAGNITUDES)
def test_every_magnitude_is_the_oracles(metric: str, kernel: str, heads: str) -> None:
    """All six metrics, both kernels, both ways to pool heads; one head has values that are zero."""
    tokens = sample(2, tokens=35, **WIDE)
    tokens.values[0, ::4] = 0.0
    keys, values, queries = tensors(tokens, torch.float32)

    log_magnitude = fused.log_magnitude(keys, values, queries, metric=metric, kernel=kernel, heads=heads)

    expected = oracles.log_magnitude(*read(queries, keys, values), metric=metric, kernel=kernel, heads=heads)
    np.testing.assert_allclose(np.exp(log_magnitude.numpy()), np.exp(expected), atol=2e-5)
    assert log_magnitude.max() == 0.0


@dtypes
def test_logarithms_of_magnitudes_stay_accurate_where_logits_reach_hundreds(dtype: torch.dtype) -> None:
    """Not the magnitude only, most of which is 0 there, but its logarithm, by which tokens are ordered."""
    keys, values, queries = tensors(sample(3, tokens=50, width=64, value_width=16, key_bias=300, query_bias=9.0), dtype)
    options = {"metric": "dual", "kernel": "exponential", "heads": "mean"}

    log_magnitude = fused.log_magnitude(keys, values, queries.float(), **options)

    expected = oracles.log_magnitude(*read(queries, keys, values))
    logits = np.einsum("hd,hnd->hn", *read(queries[::2], keys)) / 8.0
    finite = np.isfinite(expected)
    assert np.abs(logits).max() > 300.0
    np.testing.assert_allclose(log_magnitude.numpy()[finite], expected[finite], atol=2e-4)
    np.testing.assert_array_equal(np.isfinite(log_magnitude.numpy()), finite)


@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
def test_tokens_of_zero_values_carry_nothing(heads: str) -> None:
    """Their magnitude is the least, 0, so that the others' are their scores over the largest."""
    tokens = sample(2, tokens=35, heads=1, group=1, width=32, value_width=16)
    tokens.values[:, ::4] = 0.0
    keys, values, queries = tensors(tokens, torch.float32)

    log_magnitude = fused.log_magnitude(keys, values, queries, metric="dual", kernel="exponential", heads=heads).numpy()

    scores = oracles.log_head_scores(*read(queries, keys, values), "dual", "exponential")[0]
    zero = np.arange(35) % 4 == 0
    assert (log_magnitude[zero] == -np.inf).all()
    np.testing.assert_allclose(log_magnitude[~zero], (scores - scores.max())[~zero], atol=1e-5)


def test_equal_magnitudes_are_all_ones() -> None:
    """Also where all of them are zero."""
    options = {"metric": "value_norm", "kernel": "exponential", "heads": "mean"}
    for values in (torch.ones(2, 5, 16), torch.zeros(2, 5, 16)):
        log_magnitude = fused.log_magnitude(torch.randn(2, 5, 16), values, None, **options)
        assert log_magnitude.tolist() == [0.0] * 5


def largest_shared(duplication: Duplication, chosen: list[int]) -> Any:
    """Return each token's largest duplication with some tokens, as the kernels find it."""
    factors = [fused._of_one_sample(factor) for factor in duplication.factors]
    count = factors[0].tokens.shape[-2]
    places = triton_places.everywhere(1, count, torch.device("cpu"))
    ranking = chooser(torch.zeros(count), len(chosen) + 1)
    ranking.chosen[0, :-1] = torch.tensor(chosen)
    ranking.shared.zero_()
    triton_pc_mmr._Comparison(factors, places, len(chosen)).raise_shared(ranking, 0, len(chosen))
    return ranking.shared[0].view(torch.float32).numpy()


def chooser(scores: Any, total: int) -> Any:
    """Return what chooses `total` tokens of one sample."""
    places = triton_places.everywhere(1, scores.shape[0], scores.device)
    wanted = torch.full_like(places.counts, total)
    return triton_pc_mmr._Ranking(scores[None], places, wanted, total, penalty=5.0, floor=0.01, exponent=2)


@dtypes
@pytest.mark.parametrize("bias", [0.0, 300.0])
@pytest.mark.parametrize(
    ("metric", "kernel"), [*((metric, "exponential") for metric in oracles.SIMILARITIES), ("dual", "linear")]
)
def test_every_duplication_is_the_oracles(metric: str, kernel: str, bias: float, dtype: torch.dtype) -> None:
    """Near float32 accuracy, whatever the inputs' dtype, also of keys that have a common part of norm 300.

    The interpreter cuts float32 numbers off where it makes them bfloat16, which a GPU rounds: hence that tolerance.
    """
    tokens = sample(4, tokens=70, **{**WIDE, "width": 48}, key_bias=bias)
    tokens.values[:, 5] = 0.0
    keys, values, hidden = (torch.asarray(x).to(dtype) for x in (tokens.keys, tokens.values, tokens.hidden))
    chosen = [5, *range(20, 45)]

    shared = largest_shared(Duplication(keys, values, hidden, metric=metric, kernel=kernel), chosen)

    exact = read(keys, values, hidden)
    table = oracles.duplication(*exact[:2], metric=metric, kernel=kernel, hidden=exact[2])
    np.testing.assert_allclose(shared, table[:, chosen].max(axis=1), atol=3e-4 if dtype == torch.bfloat16 else 5e-5)


EXTREMES: dict[str, tuple[float, float, list[torch.dtype]]] = {
    "values of 1e30": (1.0, 1e30, [torch.float32, torch.bfloat16]),
    "values of 1e-30": (1.0, 1e-30, [torch.float32, torch.bfloat16]),
    "values near the end of float16": (1.0, 3e3, DTYPES),
    "tiny values": (1.0, 1e-3, DTYPES),
    "tiny keys": (1e-6, 1.0, DTYPES),
    "keys near the end of float16": (1e4, 1.0, DTYPES),
}


@pytest.mark.parametrize(
    ("extreme", "dtype"),
    [(name, dtype) for name, (_, _, allowed) in EXTREMES.items() for dtype in allowed],
)
def test_lengths_at_the_ends_of_a_dtype_are_handled(extreme: str, dtype: torch.dtype) -> None:
    """Squares that leave float32 leave no trace, neither in magnitudes nor in duplications."""
    tokens = sample(5, tokens=20, **WIDE)
    by_key, by_value, _ = EXTREMES[extreme]
    keys = torch.asarray(tokens.keys * by_key).to(dtype)
    values = torch.asarray(tokens.values * by_value).to(dtype)
    queries = torch.asarray(tokens.queries).to(dtype)

    shared = largest_shared(Duplication(keys, values, metric="dual", kernel="exponential"), [1, 2, 3])
    log_magnitude = fused.log_magnitude(keys, values, queries, metric="dual", kernel="exponential", heads="mean")

    table = oracles.duplication(*read(keys, values))
    expected = np.exp(oracles.log_magnitude(*read(queries, keys, values)))
    np.testing.assert_allclose(shared[4:], table[4:, 1:4].max(axis=1), atol=3e-4)
    np.testing.assert_allclose(np.exp(log_magnitude.numpy()), expected, atol=1e-3)


OPTIONS: dict[str, dict[str, Any]] = {
    "chunks of one": {"chunk": 1, "growth": 1.0},
    "equal chunks": {"chunk": 5, "growth": 1.0},
    "odd growth": {"chunk": 3, "growth": 1.5},
    "one chunk": {"chunk": 50},
    "exponent 1": {"exponent": 1},
    "floor 0": {"floor": 0.0},
    "high floor": {"floor": 0.5},
    "no penalty": {"penalty": 0.0},
    "small penalty": {"penalty": 0.4},
    "temper 0.5": {"temper": 0.5},
    "temper 4": {"temper": 4.0},
}


@pytest.mark.parametrize("count", [1, 15])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_of_pc_mmr_is_the_oracles(options: dict[str, Any], count: int) -> None:
    """Chunk sizes, penalties and their powers."""
    arrays = tensors(sample(22, tokens=40, **WIDE), torch.float32)

    kept = select_tokens(*arrays, count, strategy=PCMMR(**options)).tolist()

    assert kept == chosen_by_oracle(arrays, count, **options)
    assert count == 1 or kept != chosen_by_oracle(arrays, count), "the option makes no difference here"


@pytest.mark.parametrize(
    ("metric", "kernel"), [("value", "exponential"), ("hidden", "exponential"), ("dual", "linear")]
)
def test_selection_by_every_similarity_is_the_oracles(metric: str, kernel: str, launches: list[str]) -> None:
    """One factor or two, tokens or hidden states."""
    tokens = sample(7, tokens=40, **WIDE)
    arrays = tensors(tokens, torch.float32)
    hidden = torch.asarray(tokens.hidden, dtype=torch.float32)

    kept = select_tokens(*arrays, 13, similarity=metric, kernel=kernel, hidden=hidden)

    keys, values, queries = read(*arrays)
    table = oracles.duplication(keys, values, metric=metric, kernel=kernel, hidden=read(hidden)[0])
    scores = oracles.log_magnitude(queries, keys, values, kernel=kernel)
    assert kept.tolist() == sorted(oracles.pc_mmr(scores, oracles.pair_lookup(table), 13))
    assert "compare" in launches


@pytest.mark.parametrize("sizes", [[1], [5, 3], [1] * 6, [37], [16, 21]], ids=str)
def test_a_chunk_is_the_best_scores_with_ties_to_the_lower_position(sizes: list[int], ranking: str) -> None:
    """Scores with many ties, -inf and both zeros; nothing is shared, so that no penalty moves them."""
    generator = np.random.default_rng(8)
    scores = generator.choice([-np.inf, -3.5, -1.0, -0.0, 0.0], size=37).astype(np.float32)
    ranking = chooser(torch.asarray(scores), sum(sizes))

    ends = np.cumsum(sizes).tolist()
    chunks = [ranking.take(end - size, size)[0] for end, size in zip(ends, sizes, strict=True)]

    order = oracles.top_k(scores.tolist(), len(scores))
    assert [sorted(chunk.tolist()) for chunk in chunks] == [
        sorted(order[end - size : end]) for end, size in zip(ends, sizes, strict=True)
    ]


def test_scores_that_are_no_numbers_still_give_distinct_tokens(ranking: str) -> None:
    """Unchecked input must not make the kernels write out of bounds or name a token twice."""
    scores = torch.tensor([math.nan, -math.nan, math.inf, -math.inf, 0.0] * 4)
    scores.view(torch.int32)[4::5] = -1  # the number whose rank would be that of a token that is taken
    ranking = chooser(scores, 20)

    chunks = [ranking.take(start, 5)[0] for start in range(0, 20, 5)]

    assert sorted(torch.cat(chunks).tolist()) == list(range(20))


@pytest.mark.parametrize("tokens", [1, 2, 17, 65])
def test_choosing_all_tokens_chooses_each_once(tokens: int, ranking: str) -> None:
    """The least magnitude is 0, its logarithm -inf: still a token, not one that is taken."""
    keys, values, queries = tensors(sample(9, tokens=tokens, **WIDE), torch.float32)
    scores = fused.log_magnitude(keys, values, queries, metric="dual", kernel="exponential", heads="mean")
    duplication = Duplication(keys, values, metric="dual", kernel="exponential")

    chosen = fused.progressive_chunked_mmr(
        scores, duplication, PCMMR().chunk_sizes(tokens), penalty=5.0, floor=0.0, exponent=2
    )

    assert sorted(chosen.tolist()) == list(range(tokens))


def test_many_tokens_are_ranked_to_the_same_end(monkeypatch: pytest.MonkeyPatch, launches: list[str]) -> None:
    """Torch's top-k, columns prepared in parts and comparisons cut differently change nothing."""
    arrays = tensors(sample(10, tokens=150, **WIDE), torch.bfloat16)
    monkeypatch.setattr(triton_pc_mmr, "AT_ONCE", 100)
    monkeypatch.setattr(triton_pc_mmr, "ROOM", 6)
    monkeypatch.setattr(triton_pc_mmr, "PROGRAMS", 1)

    kept = select_tokens(*arrays, 60)

    assert kept.tolist() == chosen_by_oracle(arrays, 60)
    assert "penalise" in launches
    assert "take_best" not in launches
    assert launches.count("compare") > len(PCMMR().chunk_sizes(60))


@pytest.mark.parametrize("kinds", [1, 9])
@pytest.mark.usefixtures("ranking")
def test_of_identical_tokens_the_first_are_kept(kinds: int) -> None:
    """Small integers, whose products NumPy's matrix product rounds nowhere, wherever a row stands."""
    generator = np.random.default_rng(11)
    kind = generator.integers(kinds, size=67)
    keys, values = (generator.integers(-3, 4, (2, kinds, 16))[:, kind].astype(float) for _ in range(2))
    values[:, kind == 0, 0] = 0.0
    arrays = tensors(Tokens(keys=keys, values=values, queries=keys[:, 0] * 0.25, hidden=keys[0]), torch.float16)

    for count in (3, 20):
        kept = select_tokens(*arrays, count).tolist()
        assert len(kept) == count
        for which in range(kinds):
            members = np.flatnonzero(kind == which)
            taken = np.isin(members, kept)
            assert taken.tolist() == sorted(taken.tolist(), reverse=True)


UNSERVED: dict[str, tuple[dict[str, Any], torch.dtype, Any]] = {
    "float64": ({}, torch.float64, PCMMR()),
    "keys too narrow for a tensor core": ({"width": 8}, torch.float32, PCMMR()),
    "another strategy": ({}, torch.float32, MMR()),
    "top-K": ({}, torch.float32, TopK()),
}


@pytest.mark.parametrize("case", UNSERVED.values(), ids=UNSERVED)
def test_what_the_kernels_do_not_serve_is_left_to_the_reference(case: Any, launches: list[str]) -> None:
    """With equal answers, and no kernel of the loop."""
    shape, dtype, strategy = case
    arrays = tensors(sample(14, tokens=30, **{**WIDE, **shape}), dtype)

    kept = select_tokens(*arrays, 9, strategy=strategy)

    with use_backend("reference"):
        assert kept.tolist() == select_tokens(*arrays, 9, strategy=strategy).tolist()
    assert "compare" not in launches


def test_tokens_whose_coordinates_are_apart_in_memory_are_left_to_the_reference(launches: list[str]) -> None:
    """The kernels read rows whose coordinates are neighbours."""
    keys, values, queries = tensors(sample(15, tokens=30, **WIDE), torch.float32)
    apart = keys.mT.contiguous().mT

    kept = select_tokens(apart, values, queries, 9)

    assert launches == []
    assert kept.tolist() == select_tokens(keys, values, queries, 9).tolist()


def test_a_duplication_of_the_users_own_is_left_to_the_reference() -> None:
    """A strategy may hand PC-MMR any callable."""
    supports = iwp_torch.kernels["progressive_chunked_mmr"].supports
    keys, values, _ = tensors(sample(16, tokens=30, **WIDE), torch.float32)
    ours = Duplication(keys, values, metric="dual", kernel="exponential")
    options = {"penalty": 5.0, "floor": 0.01, "exponent": 2}

    assert supports(torch.zeros(30), ours, [2, 4], **options)
    assert not supports(torch.zeros(30), ours.signed, [2, 4], **options)


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 0.995), (torch.bfloat16, 0.97)], ids=str)
def test_the_kernels_keep_the_contracts_share_of_the_oracles_tokens(dtype: torch.dtype, bar: float) -> None:
    """Clustered tokens with key biases of norm 300."""
    drawn = sample(17, tokens=300, heads=2, width=64, value_width=32, clusters=25, key_bias=300.0, query_bias=10.0)
    arrays = tensors(drawn, dtype)

    kept = select_tokens(*arrays, 67).tolist()

    assert len(set(kept) & set(chosen_by_oracle(arrays, 67))) >= bar * 67

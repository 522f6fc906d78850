"""What single methods promise beyond the golden cases: no official code, other arguments, budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iwp_core import methods
from iwp_core.methods._precision import Precision
from iwp_core.methods.holov_scores import run_score
from tests.libraries import load
from tests.methods.judging import cases

RNG = np.random.default_rng(7)
X = RNG.standard_normal((60, 6))
KEYS = RNG.standard_normal((60, 4))
TEXT = RNG.standard_normal((5, 6))
HEADS = RNG.dirichlet(np.ones(60), size=3)
ONE = HEADS.mean(axis=0)


ALIGNMENTS = ("l2", "mutual_information")


def units(x: NDArray[Any]) -> NDArray[Any]:
    """Return rows at length one."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_random_draws_the_same_on_every_library_and_another_with_another_seed() -> None:
    """The seed alone decides."""
    kept = methods.random_tokens(X, 0.5, seed=1)

    assert kept.tolist() == methods.random_tokens(load("torch").array(X), 0.5, seed=1).tolist()
    assert kept.tolist() != methods.random_tokens(X, 0.5, seed=2).tolist()


@pytest.mark.parametrize("budget", [1, 7, 31, 60])
def test_uniform_stretches_differ_by_one_token_at_most(budget: int) -> None:
    """M distinct tokens whose gaps are equal but for one."""
    gaps = np.diff(methods.uniform(X, budget))

    assert gaps.size == budget - 1
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_fastv_and_its_reverse_share_nothing_when_each_keeps_half() -> None:
    """The most and the least attended tokens are complements."""
    both = np.concatenate([methods.fastv(HEADS, 30), methods.fastv_reverse(HEADS, 30)])

    assert sorted(both.tolist()) == list(range(60))


def test_fastv_balanced_is_fastv_at_one_and_ignores_attention_at_zero() -> None:
    """At 0 the tokens least like the last one are kept."""
    cosine = units(X) @ units(TEXT[0])

    assert methods.fastv_balanced(HEADS, X, TEXT[0], 9, balance=1.0).tolist() == methods.fastv(HEADS, 9).tolist()
    found = methods.fastv_balanced(HEADS, X, TEXT[0], 9, balance=0.0)
    assert found.tolist() == sorted(np.argsort(cosine)[:9].tolist())


def test_fastv_balanced_weighs_both_scaled_to_one() -> None:
    """Equation 6, in NumPy."""
    parts = [ONE, units(X) @ units(TEXT[0])]
    p, c = ((z - z.min()) / (z.max() - z.min()) for z in parts)

    found = methods.fastv_balanced(HEADS, X, TEXT[0], 9, balance=0.3)

    assert found.tolist() == sorted(np.argsort(-(0.3 * p + 0.7 * (1 - c)))[:9].tolist())


@pytest.mark.parametrize("budget", [1, 10, 15, 59, 60])
def test_fastv_window_keeps_a_like_share_of_every_window(budget: int) -> None:
    """Of 6 x 10 tokens in windows of 3 each window keeps its share, up to one, and the best of its own."""
    kept = methods.fastv_window(HEADS, budget, grid=(6, 10), window=3)

    assert kept.size == budget
    for top in (0, 3):
        for left in range(0, 10, 3):
            members = [r * 10 + c for r in range(top, top + 3) for c in range(left, min(left + 3, 10))]
            mine = [token for token in kept.tolist() if token in members]
            assert abs(len(mine) - len(members) * budget / 60) < 1
            best = sorted(members, key=lambda token: -ONE[token])
            assert set(mine) == set(best[: len(mine)])


def test_pooling_selects_the_largest_token_of_each_window_or_averages_it() -> None:
    """Both readings of algorithm 4, on a grid whose sides are no multiples of the window."""
    select = methods.pooling(X, grid=(6, 10), window=4)
    average = methods.pooling(X, grid=(6, 10), window=4, reading="average")

    row = 0
    for top in (0, 4):
        for left in (0, 4, 8):
            members = [r * 10 + c for r in range(top, min(top + 4, 6)) for c in range(left, min(left + 4, 10))]
            best = max(members, key=lambda token: np.abs(X[token]).sum())
            assert select.kept[row] == average.kept[row] == best
            np.testing.assert_array_equal(select.tokens[row], X[best])
            np.testing.assert_allclose(average.tokens[row], X[members].mean(axis=0))
            assert set(select.assignment[members].tolist()) == {row}
            row += 1


@pytest.mark.parametrize(("budget", "kept"), [(60, 60), (15, 15), (14, 8), (1, 1)])
def test_pooling_takes_the_smallest_window_that_a_budget_allows(budget: int, kept: int) -> None:
    """6 x 10 tokens in windows of 1, 2, 3 and 10."""
    assert methods.pooling(X, grid=(6, 10), budget=budget).kept.size == kept


@pytest.mark.parametrize("alignment", ["l2", "mutual_information", "cosine"])
def test_trimtokenator_and_divprune_star_choose_among_the_aligned(alignment: str) -> None:
    """What the first stage drops, in NumPy, neither keeps."""
    apart = np.linalg.norm(X[:, None] - TEXT[None], axis=2)
    scores = {"l2": -apart, "mutual_information": -(apart**2), "cosine": units(X) @ units(TEXT).T}[alignment]
    candidates = np.sort(np.argsort(-scores.mean(axis=1))[:48])

    max_sum = methods.trimtokenator(X, TEXT, 20, alignment=alignment)
    max_min = methods.divprune_star(X, TEXT, 20, alignment=alignment)

    assert set(max_sum.tolist()) | set(max_min.tolist()) <= set(candidates.tolist())
    assert max_min.tolist() == candidates[methods.divprune(X[candidates], 20)].tolist()


def test_alignment_by_distance_and_by_its_square_differ() -> None:
    """Near one text token and far from the other wins by mean distance, halfway between by mean squared distance."""
    visual, text = np.asarray([[0.0, 0.0], [5.0, 0.5]]), np.asarray([[0.0, 0.0], [10.0, 0.0]])

    kept = [methods.trimtokenator(visual, text, 1, alignment=by, share=0.5).tolist() for by in ALIGNMENTS]

    assert kept == [[0], [1]]


def test_trimtokenator_leaves_enough_for_the_budget() -> None:
    """A budget above the share of the first stage keeps exactly the aligned tokens."""
    assert methods.trimtokenator(X, TEXT, 55).size == 55


@pytest.mark.parametrize("budget", [4, 11, 12, 40])
def test_dart_stays_within_its_budget(budget: int) -> None:
    """Four image pivots, and of every pivot the largest equal number."""
    kept = methods.dart(X, KEYS, TEXT, RNG.standard_normal((5, 4)), budget=budget)

    assert kept.size == 4 + 8 * ((budget - 4) // 8)


def test_dart_takes_what_is_left() -> None:
    """A quota beyond the tokens keeps them all."""
    assert methods.dart(X, KEYS, TEXT, RNG.standard_normal((5, 4)), quota=100).size == 60


@pytest.mark.parametrize("budget", [1, 5, 20])
def test_pact_raises_its_cutoff_until_a_budget_holds(budget: int) -> None:
    """At most so many clusters, and more than with a much smaller budget."""
    merged = methods.pact(X, X, ONE, budget=budget)

    assert 1 <= merged.kept.size <= budget
    assert merged.sizes.sum() == (merged.assignment >= 0).sum()
    for row in range(merged.kept.size):
        np.testing.assert_allclose(merged.tokens[row], X[merged.assignment == row].mean(axis=0))
        assert merged.assignment[merged.kept[row]] == row


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("budget", [25, 30, 45])
def test_prumerge_stays_within_its_budget(budget: int, spread: bool) -> None:
    """The one more token included, also with evenly spaced ones."""
    merged = methods.prumerge(X, KEYS, ONE, budget=budget, spread=spread)

    assert 2 <= merged.kept.size <= budget
    assert len(set(merged.kept.tolist())) == merged.kept.size


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("`budget` is 1 tokens of 60", lambda: methods.prumerge(X, KEYS, ONE, budget=1)),
        ("`budget` is 3 tokens, expected at least the 4", lambda: methods.dart(X, KEYS, TEXT, KEYS[:5], budget=3)),
        ("`budget` is 10: 50 of 60 tokens would be merged, at most 30", lambda: methods.tome(KEYS, X, budget=10)),
        ("`merge` and `budget` are", lambda: methods.tome(KEYS, X)),
        ("`quota` and `budget` are", lambda: methods.dart(X, KEYS, TEXT, KEYS[:5])),
        ("`window` and `budget` are", lambda: methods.pooling(X, grid=(6, 10), window=2, budget=3)),
        ("`share` and `budget` exclude", lambda: methods.prumerge(X, KEYS, ONE, share=0.1, budget=9)),
        ("`grid` is", lambda: methods.pooling(X, grid=(6, 11), window=2)),
        ("`grid` is", lambda: methods.mustdrop_merge(X, grid=(6, 10), window=3)),
        ("`reading` is 'mean'", lambda: methods.pooling(X, grid=(6, 10), window=2, reading="mean")),
        ("`combination` is 'multi'", lambda: methods.scope(X, HEADS, 3, combination="multi")),
        ("`alignment` is 'L2'", lambda: methods.trimtokenator(X, TEXT, 3, alignment="L2")),
        ("`contextual` is 60", lambda: methods.visionzip(X, KEYS, HEADS, dominant=5, contextual=60)),
        ("`patches` is 61", lambda: methods.holov(X, ONE, 5, patches=61)),
        ("`relevance` has entries down to -1", lambda: methods.cdpruner(X, -np.ones(60), 3)),
        ("`threshold` is 0, but", lambda: methods.vtw_layer(TEXT, TEXT[:, None, ::-1].copy(), threshold=0.0)),
        ("`sign` is 0", lambda: methods.cdpruner_relevance(X[None], TEXT, sign=0)),
        ("`kept` has all", lambda: methods.sparsevlm_recycle(X, ONE, np.arange(60))),
        ("`visual` are not ascending", lambda: methods.pyramiddrop(KEYS[:1], KEYS[None], np.asarray([3, 2]), 1)),
        ("`features` has shape", lambda: methods.scope(X[:0], HEADS, 3)),
        ("`attention` has shape", lambda: methods.scope(X[:5], HEADS, 3)),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(message: str, call: Any) -> None:
    """Each refusal names the argument, what it is and what is allowed."""
    with pytest.raises(ValueError, match=message):
        call()


def test_tome_keeps_half_at_least_and_a_budget_exactly() -> None:
    """`merge` beyond the half is cut, a budget is met; sizes sum to the tokens."""
    assert methods.tome(KEYS, X, merge=1000).kept.size == 30
    merged = methods.tome(KEYS, X, budget=44)
    assert merged.kept.size == 44
    assert merged.sizes.sum() == 60
    for row in range(44):
        np.testing.assert_allclose(merged.tokens[row], X[merged.assignment == row].mean(axis=0))


def test_tome_weighs_by_sizes_from_before() -> None:
    """Merging twice is the mean over all the original tokens."""
    once = methods.tome(KEYS, X, merge=20)
    twice = methods.tome(KEYS[once.kept], once.tokens, sizes=once.sizes, merge=15)

    origin = twice.assignment[once.assignment]
    for row in range(twice.kept.size):
        np.testing.assert_allclose(twice.tokens[row], X[origin == row].mean(axis=0))


def test_mustdrop_budget_keeps_the_key_tokens_and_the_largest_shares() -> None:
    """The key tokens first, then by what all text gives."""
    rows = RNG.dirichlet(np.ones(60), size=(2, 4))
    kept = methods.mustdrop(rows, np.asarray([7, 8]), budget=10)

    others = [token for token in np.argsort(-rows.mean(axis=0).sum(axis=0)).tolist() if token not in {7, 8}]
    assert kept.tolist() == sorted([7, 8, *others[:8]])
    with pytest.raises(ValueError, match="`budget` is 1, 1 tokens, expected at least the 2"):
        methods.mustdrop(rows, np.asarray([7, 8]), budget=1)


def holov_score(rows: NDArray[Any], attention: NDArray[Any]) -> float:
    """Return the formula for one run, with loops in NumPy."""
    count = len(rows)
    cosine = units(rows) @ units(rows).T
    variation = np.empty(count)
    for i in range(count):
        similar = [cosine[i, j] if j != i else 0.0 for j in range(count)]
        mean = sum(similar) / (count - 1)
        variation[i] = sum((s - mean) ** 2 for s in similar) / (count - 1)
    scaled = 1000 * attention
    return float(np.mean(scaled + 0.09 * variation * scaled.mean() / (variation.mean() + 1e-6)))


def test_holov_score_is_the_mean_of_attention_and_variation() -> None:
    """For one run."""
    rows, attention = X[:9], ONE[:9]

    found = run_score(rows, attention, Precision.of(rows))

    np.testing.assert_allclose(found, holov_score(rows, attention), rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_holov_score_of_a_few_tokens_that_hardly_differ_in_their_cosines_is_finite(count: int, library: str) -> None:
    """In float16 the scale of their variation is beyond the dtype's range, the score is not."""
    rows = np.zeros((count, 2048), dtype=np.float16)
    rows[:, 0], rows[range(count), range(1, count + 1)] = 1, 20
    attention = np.linspace(0.3, 0.5, count).astype(np.float16)
    xp = load(library)

    held = xp.array(rows), xp.array(attention)
    precision = Precision.of(*held)
    found = run_score(*map(precision.enter, held), precision)

    expected = holov_score(rows.astype(np.float64), attention.astype(np.float64))
    np.testing.assert_allclose(float(found), expected, rtol=0.01)


def test_holov_fills_up_what_short_runs_leave() -> None:
    """All attention on one run of five asks for more than it has; the most attended of the others follow."""
    attention = np.full(60, 1e-9)
    attention[5:10] = 1.0
    attention[50:] = np.linspace(1e-8, 2e-8, 10)

    kept = methods.holov(X, attention, 12, patches=12)

    assert methods.holov_order(X, attention, 12, patches=12).size < 12
    assert kept.size == 12
    assert set(range(5, 10)) <= set(kept.tolist())


def test_visionzip_without_class_token_and_without_context_keeps_the_dominant() -> None:
    """As many tokens as asked for, each its own."""
    merged = methods.visionzip(X, KEYS, HEADS, dominant=9, contextual=0, class_token=False)

    assert merged.kept.tolist() == methods.fastervlm(HEADS, 9).tolist()
    assert merged.assignment[merged.kept].tolist() == list(range(9))
    assert (merged.assignment < 0).sum() == 51


def test_vispruner_keeps_its_count_however_odd_the_list() -> None:
    """Every budget of every size works, where the official code stops at an odd list."""
    for budget in range(1, 61):
        assert methods.vispruner(X, HEADS, budget).size == budget


def test_scope_with_constant_saliency_and_exponent_zero_are_the_same() -> None:
    """The exponent takes the saliency away."""
    flat = np.full((1, 60), 1 / 60)

    assert methods.scope(X, HEADS, 12, exponent=0.0).tolist() == methods.scope(X, flat, 12).tolist()


def test_prumerge_keeps_one_token_where_no_attention_is_an_outlier() -> None:
    """Equal attention has no outlier; one token and the sum of the others remain."""
    merged = methods.prumerge(X, KEYS, np.full(60, 1 / 60))

    assert merged.kept.size == 2
    np.testing.assert_allclose(merged.tokens[1], X[1:].mean(axis=0) * 59 / 60)


@pytest.mark.parametrize("number", [0, 1, 2, 4, 5, 6])
def test_sparsevlm_recycles_as_the_official_code_with_its_noise(number: int) -> None:
    """With the noise that the official code drew, clusters and merged tokens are its own."""
    _, case = cases("sparsevlm")[number]
    start, total = int(case["arg_v0"]), int(case["arg_N"])
    hidden = case["in_hidden"][start : start + total]

    merged = methods.sparsevlm_recycle(hidden, case["out_scores"], case["out_keep"], noise=case["out_noise"])

    recycled = case["out_recycled"]
    assert merged.kept.tolist() == recycled[case["out_centres_local"]].tolist()
    assert merged.assignment[recycled].tolist() == case["out_assign_local"].tolist()
    np.testing.assert_allclose(merged.tokens, case["out_merged"], rtol=1e-4, atol=1e-6)


def test_a_share_of_the_tokens_is_rounded_as_everywhere() -> None:
    """0.111 of 60 tokens are seven, for every rule with a count."""
    assert methods.divprune(X, 0.111).size == methods.fastv(HEADS, 0.111).size == 7

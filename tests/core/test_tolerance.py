"""`Tolerance`: as few tokens as keep an error within a share, against a slow loop over numbers of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_core import MMR, PCMMR, Strategy, Tolerance, TopK, deletion_error, select_tokens, tolerance
from tests import oracles
from tests.libraries import Library
from tests.strategies import Tokens, sample

STRATEGIES = [PCMMR(), PCMMR(chunk=1, growth=1.0, penalty=1.0, exponent=1), MMR(), TopK()]
SHARES = [0.9, 0.5, 0.2, 0.05, 0.001]
strategies = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
bounds = pytest.mark.parametrize("bound", ["output", "deletion"])


def asked(seed: int, *, count: int = 20, queries: int = 3, **options: Any) -> tuple[Tokens, Any, Any]:
    """Draw a sample, T queries for each of its 4 heads, and the log-sum-exp of what each of them sees elsewhere."""
    tokens = sample(seed, tokens=count, heads=2, group=2, clusters=6, **options)
    generator = np.random.default_rng(seed)
    text = generator.standard_normal((4, queries, tokens.keys.shape[-1]))
    return tokens, text, generator.standard_normal((4, queries))


def weights_of(tokens: Tokens, queries: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """Softmax weights (Hq, T, N) of single queries over the tokens and what is outside of them."""
    logits = np.einsum("htd,hnd->htn", queries, np.repeat(tokens.keys, 2, axis=0)) / np.sqrt(queries.shape[-1])
    outside = np.full((*logits.shape[:2], 1), -np.inf) if context is None else context[..., None]
    everything = np.concatenate([logits, outside], axis=-1)
    weights = np.exp(everything - everything.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))[..., :-1]


def moved_outputs(tokens: Tokens, queries: np.ndarray, context: np.ndarray | None, dropped: list[int]) -> float:
    """Largest over heads and queries of the dropped tokens' weights times what their values can move."""
    worst = 0.0
    for head, rows in enumerate(weights_of(tokens, queries, context)):
        lengths = np.linalg.norm(tokens.values[head // 2], axis=-1)
        for row in rows:
            worst = max(worst, sum(row[i] * (lengths[i] + lengths.max()) for i in dropped))
    return worst


def dropped_updates(tokens: Tokens, dropped: list[int]) -> float:
    """Largest over heads of the norm of the dropped updates over the norm of all, from kernel values."""
    ratios = []
    for keys, values in zip(tokens.keys, tokens.values, strict=True):
        gram = np.exp(keys @ keys.T / np.sqrt(keys.shape[-1])) * (values @ values.T)
        ratios.append(np.sqrt(max(gram[np.ix_(dropped, dropped)].sum(), 0.0) / gram.sum()))
    return float(max(ratios))


def expected(tokens: Tokens, queries: Any, context: Any, budget: Tolerance, **options: Any) -> list[int]:
    """Count up from one token until the error of dropping the others is small enough."""
    everyone = list(range(tokens.count))
    for count in range(1, tokens.count + 1):
        kept = select_tokens(tokens.keys, tokens.values, queries, count, **options).tolist()
        dropped = [i for i in everyone if i not in kept]
        if budget.bound == "deletion":
            error = dropped_updates(tokens, dropped)
        else:
            whole = moved_outputs(tokens, queries, context, everyone)
            error = moved_outputs(tokens, queries, context, dropped) / whole
        if error <= budget.share * (1 + 1e-12):
            return kept
    raise AssertionError


@strategies
@bounds
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(3))
def test_the_least_number_that_keeps_the_bound_is_kept(seed: int, share: float, bound: str, strategy: Strategy) -> None:
    """The tokens are those of a fixed budget of that number."""
    tokens, text, context = asked(seed)
    budget, given = Tolerance(share, bound), {"context": context} if bound == "output" else {}

    kept = select_tokens(tokens.keys, tokens.values, text, budget, strategy=strategy, **given)

    assert kept.tolist() == expected(tokens, text, context, budget, strategy=strategy)


@bounds
def test_every_library_keeps_the_same(xp: Library, bound: str) -> None:
    """A batch of two samples, each with its own number, filled at the end with -1."""
    samples = [asked(seed, count=12, spread=1.0 + 2 * seed) for seed in range(2)]
    arrays = [np.stack([getattr(one[0], name) for one in samples]) for name in ("keys", "values")]
    arrays.append(np.stack([one[1] for one in samples]))
    budget, strategy = Tolerance(0.1, bound), TopK()

    kept = xp.numpy(select_tokens(*(xp.array(x) for x in arrays), budget, strategy=strategy))

    alone = [expected(one[0], one[1], None, budget, strategy=strategy) for one in samples]
    assert len({len(row) for row in alone}) > 1
    assert [row[row >= 0].tolist() for row in kept] == alone
    assert all((row[len(one) :] == -1).all() for row, one in zip(kept, alone, strict=True))


@bounds
def test_a_mask_leaves_padding_out_of_the_bound(bound: str) -> None:
    """Real tokens at random places keep what they keep alone."""
    tokens, text, _ = asked(4)
    where = np.sort(np.random.default_rng(0).choice(30, tokens.count, replace=False))
    keys, values = (np.full((2, 30, x.shape[-1]), np.nan) for x in (tokens.keys, tokens.values))
    keys[:, where], values[:, where] = tokens.keys, tokens.values
    budget = Tolerance(0.1, bound)

    kept = select_tokens(keys, values, text, budget, mask=np.isin(np.arange(30), where))

    assert kept.tolist() == where[expected(tokens, text, None, budget)].tolist()


@bounds
@pytest.mark.parametrize("patch", [{"FIRST": 2}, {"BLOCK": 3}], ids=str)
def test_blocks_and_stages_of_the_search_change_nothing(
    bound: str, patch: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few tokens are ordered at first, and however the pairs are cut."""
    tokens, text, _ = asked(5, count=40)
    whole = select_tokens(tokens.keys, tokens.values, text, Tolerance(0.05, bound))
    for name, value in patch.items():
        monkeypatch.setattr(tolerance, name, value)

    assert select_tokens(tokens.keys, tokens.values, text, Tolerance(0.05, bound)).tolist() == whole.tolist()


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.01, 0.99), elsewhere=st.booleans())
def test_no_output_moves_further_than_the_bound_says(seed: int, share: float, elsewhere: bool) -> None:
    """Dropping moves each head's output by at most the bound, with and without tokens outside of the candidates."""
    tokens, text, _ = asked(seed)
    generator = np.random.default_rng(seed)
    lengths = np.linalg.norm(tokens.values, axis=-1).max(axis=1)
    keys, values = generator.standard_normal((2, 2, 5, 4))
    values = values[..., :3] / np.linalg.norm(values[..., :3], axis=-1, keepdims=True) * lengths[:, None, None]
    group = np.repeat(keys, 2, axis=0)
    outside = np.einsum("htd,hnd->htn", text, group) / np.sqrt(text.shape[-1])
    context = np.log(np.exp(outside).sum(axis=-1)) if elsewhere else None
    given = {} if context is None else {"context": context}

    kept = select_tokens(tokens.keys, tokens.values, text, Tolerance(share), **given)

    dropped = [i for i in range(tokens.count) if i not in kept]
    allowed = moved_outputs(tokens, text, context, dropped)
    logits = np.einsum("htd,hnd->htn", text, np.repeat(tokens.keys, 2, axis=0)) / np.sqrt(text.shape[-1])
    for head in range(4):
        own = np.concatenate([tokens.values[head // 2], values[head // 2]]) if elsewhere else tokens.values[head // 2]
        for t in range(text.shape[1]):
            scores = np.exp(np.concatenate([logits[head, t], outside[head, t]]) if elsewhere else logits[head, t])
            left = scores.copy()
            left[dropped] = 0.0
            change = scores @ own / scores.sum() - left @ own / left.sum()
            assert np.linalg.norm(change) <= allowed * (1 + 1e-9) + 1e-12
    everyone = list(range(tokens.count))
    assert allowed <= share * moved_outputs(tokens, text, context, everyone) * (1 + 1e-9)


@given(seed=st.integers(0, 99), share=st.floats(0.01, 0.99), kernel=st.sampled_from(oracles.KERNELS))
def test_the_deletion_error_of_what_is_kept_is_within_the_share(seed: int, share: float, kernel: str) -> None:
    """Of every head, for both kernels, as `deletion_error` measures it."""
    tokens, text, _ = asked(seed)

    kept = select_tokens(tokens.keys, tokens.values, text, Tolerance(share, "deletion"), kernel=kernel)

    assert deletion_error(tokens.keys, tokens.values, kept, kernel=kernel).max() <= share * (1 + 1e-9)


@bounds
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_keys_with_a_large_bias_neither_overflow_nor_lose_the_bound(bound: str, dtype: str) -> None:
    """Logits in the hundreds, in narrow floats: nearly the number that float64 keeps."""
    torch = pytest.importorskip("torch", reason="NumPy has no bfloat16")
    tokens, text, _ = asked(6, count=60, key_bias=40.0)
    arrays = [torch.asarray(x).to(getattr(torch, dtype)) for x in (tokens.keys, tokens.values, text)]

    kept = select_tokens(*arrays, Tolerance(0.1, bound))
    exact = select_tokens(*(x.double() for x in arrays), Tolerance(0.1, bound))

    assert abs(len(kept) - len(exact)) <= 2


def test_an_error_that_equals_the_share_is_within() -> None:
    """Ten equal tokens, of which three may go: rounding does not keep an eighth."""
    ones = np.ones((10, 2))

    assert [len(select_tokens(ones, ones, ones[0], Tolerance(share, "output"))) for share in (0.3, 0.1, 0.9)] == [
        7, 9, 1,
    ]  # fmt: skip
    assert len(select_tokens(ones, ones, ones[0], Tolerance(0.3, "deletion"))) == 7


@bounds
def test_tokens_without_value_leave_one(bound: str) -> None:
    """Nothing is lost with them, and at least one token stays."""
    tokens, text, _ = asked(7)

    assert len(select_tokens(tokens.keys, 0 * tokens.values, text, Tolerance(0.1, bound))) == 1
    assert select_tokens(tokens.keys[:, :1], tokens.values[:, :1], text, Tolerance(0.1, bound)).tolist() == [0]


@bounds
def test_numbers_that_are_none_end_the_search(bound: str) -> None:
    """Where nobody validates, some answer comes instead of a search without an end."""
    tokens, text, _ = asked(7)
    tokens.values[:, 3] = np.nan

    with np.errstate(invalid="ignore"):
        kept = select_tokens(tokens.keys, tokens.values, text, Tolerance(0.1, bound), strategy=TopK(), validate=False)

    assert 1 <= len(kept) <= tokens.count


@pytest.mark.parametrize("share", [0, 1, 1.0, -0.1, float("nan"), float("inf")])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    """Neither end makes sense: nothing may be lost, or anything."""
    with pytest.raises(ValueError, match=r"`share` is .* expected a number in \(0, 1\)"):
        Tolerance(share)


@pytest.mark.parametrize("share", [True, "0.1", None])
def test_a_share_is_a_number(share: object) -> None:
    """Booleans and texts are mistakes."""
    with pytest.raises(TypeError, match="`share` is"):
        Tolerance(share)  # type: ignore[arg-type]


def test_an_unknown_bound_is_refused() -> None:
    """The message lists those there are."""
    with pytest.raises(ValueError, match="`bound` is 'outputs', expected one of 'output', 'deletion'"):
        Tolerance(0.1, "outputs")


def test_a_strategy_without_an_order_is_refused() -> None:
    """Choices that are not nested have no first tokens."""

    class Last:
        """Keep the last tokens."""

        def select(self, log_magnitude: Any, _: Any, count: int) -> Any:
            """Return them."""
            return np.arange(len(log_magnitude))[-count:]

    tokens, text, _ = asked(8)

    with pytest.raises(TypeError, match=r"`strategy` is .* expected an object with `order`"):
        select_tokens(tokens.keys, tokens.values, text, Tolerance(0.1), strategy=Last())


def test_outputs_need_queries_and_softmax() -> None:
    """A bound on what nobody reads, or of another attention, is none."""
    tokens, text, _ = asked(9)

    with pytest.raises(TypeError, match=r"`queries` is None.*Tolerance"):
        select_tokens(tokens.keys, tokens.values, None, Tolerance(0.1), magnitude="value_norm")
    with pytest.raises(ValueError, match="`kernel` is 'linear', expected 'exponential'"):
        select_tokens(tokens.keys, tokens.values, text, Tolerance(0.1), kernel="linear")


def test_a_count_that_has_to_be_known_before_refuses_a_tolerance() -> None:
    """Rules that take a number say so."""
    from iwp_core.methods import divprune

    with pytest.raises(TypeError, match="`budget` is Tolerance"):
        divprune(np.eye(4), Tolerance(0.1))  # type: ignore[arg-type]

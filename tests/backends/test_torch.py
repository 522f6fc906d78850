"""The torch backend: the reference's answers to the last bit, in full precision whatever the surroundings allow."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import iwp_core
from iwp_core import TopK, select_tokens, use_backend
from iwp_core._arrays import take_tokens
from iwp_core._validate import all_finite
from iwp_core.duplication import duplication_block
from iwp_core.pc_mmr import largest

torch = pytest.importorskip("torch", reason="the backend serves torch tensors")
iwp_torch = pytest.importorskip("iwp_torch", reason="the backend's package is not installed")


def tokens(seed: int, total: int = 600, dtype: Any = None) -> tuple[Any, Any, Any]:
    """Return keys with a bias of norm 300, values and queries of clustered tokens."""
    generator = np.random.default_rng(seed)
    member = generator.integers(0, 30, total)
    bias = 300 / np.sqrt(32) * np.ones(32)
    keys = generator.standard_normal((2, 30, 32))[:, member] + 0.4 * generator.standard_normal((2, total, 32)) + bias
    values = generator.standard_normal((2, 30, 16))[:, member] + 0.4 * generator.standard_normal((2, total, 16))
    queries = generator.standard_normal((8, 32))
    return tuple(torch.asarray(x, dtype=dtype or torch.float32) for x in (keys, values, queries))


def blocks(*, gaussian: bool, second: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return gathered tokens as `duplication_block` takes them."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 70, 24), (2, 33, 24)] + ([(2, 70, 9), (2, 33, 9)] if second else [])
    return tuple(torch.randn(shape, generator=generator) / 4 for shape in shapes), {"gaussian": gaussian}


CASES = {
    "duplication_block, Gaussian and cosine": (duplication_block, *blocks(gaussian=True, second=True)),
    "duplication_block, Gaussian": (duplication_block, *blocks(gaussian=True, second=False)),
    "duplication_block, cosines": (duplication_block, *blocks(gaussian=False, second=True)),
    "largest": (largest, (torch.randn(500, generator=torch.Generator().manual_seed(1)), 40), {}),
    "largest with ties and -inf": (largest, (torch.tensor([0.0, -torch.inf, 1.0, 1.0, -torch.inf]), 4), {}),
    "take_tokens": (take_tokens, (torch.randn(3, 50, 7), torch.tensor([4, 4, 49, 0])), {}),
    "all_finite": (all_finite, (torch.tensor([1.0, 2.0]),), {}),
    "all_finite, a sum that overflows": (all_finite, (torch.tensor([3e38, 3e38]),), {}),
    "all_finite, NaN": (all_finite, (torch.tensor([1.0, torch.nan]),), {}),
    "all_finite, infinities that cancel": (all_finite, (torch.tensor([torch.inf, -torch.inf]),), {}),
    "all_finite, float16": (all_finite, (torch.full((9,), 6e4, dtype=torch.float16),), {}),
}


FUSED = {"log_magnitude", "progressive_chunked_mmr"}
"""Kernels of CUDA tensors, which test_triton.py holds to the oracle: not the reference's operations."""


def test_every_kernel_has_a_case() -> None:
    """A kernel without a conformance case would go unnoticed."""
    assert set(iwp_torch.kernels) == FUSED | {function.__name__ for function, _, _ in CASES.values()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_kernel_is_its_reference_bit_for_bit(case: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> None:
    """Same operations, same roundings."""
    function, arguments, options = case

    ours = iwp_torch.kernels[function.__name__].run(*arguments, **options)

    with use_backend("reference"):
        expected = function(*arguments, **options)
    assert torch.equal(torch.as_tensor(ours), torch.as_tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_plugin_changes_no_answer(seed: int, dtype: Any) -> None:
    """With and without it the same tokens stay."""
    arrays = tokens(seed, dtype=dtype)

    kept = select_tokens(*arrays, 0.222)

    with use_backend("reference"):
        assert torch.equal(kept, select_tokens(*arrays, 0.222))


def test_autocast_around_a_call_changes_nothing() -> None:
    """Under autocast a float32 product is rounded to bfloat16; selection is shielded from that."""
    keys, values, queries = tokens(0)
    quiet = iwp_core.information_magnitude(keys, values, queries)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        shielded = iwp_core.information_magnitude(keys, values, queries)
        with use_backend("reference"):
            exposed = iwp_core.information_magnitude(keys, values, queries)

    assert torch.equal(shielded, quiet)
    assert not torch.equal(exposed, quiet), "autocast no longer does harm: this test shows nothing"


@pytest.fixture
def reduced_precision() -> Iterator[None]:
    """Allow TF32 and bfloat16 products, as many training scripts do."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def allowed() -> tuple[str, str]:
    """Return which float32 products the backends may compute."""
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


class Spy(TopK):
    """A strategy that notes under which settings it runs."""

    def select(self, log_magnitude: Any, duplication: Any, count: int) -> Any:
        """Note the settings, then choose by magnitude."""
        seen.append((*allowed(), torch.is_grad_enabled()))
        if count == FAILING:
            msg = "a strategy that fails"
            raise ZeroDivisionError(msg)
        return super().select(log_magnitude, duplication, count)


FAILING = 7
seen: list[tuple[str, str, bool]] = []


@pytest.mark.usefixtures("reduced_precision")
@pytest.mark.parametrize("count", [5, FAILING])
def test_reduced_precision_is_off_within_a_call_and_as_before_after_it(count: int) -> None:
    """Also where the call ends by an exception."""
    seen.clear()
    before = allowed()

    try:
        select_tokens(*tokens(1), count, strategy=Spy())
    except ZeroDivisionError:
        assert count == FAILING

    assert seen == [("ieee", "ieee", False)]
    assert before != ("ieee", "ieee")
    assert allowed() == before
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.is_grad_enabled()


def test_tensors_that_require_gradients_are_selected_without_a_graph() -> None:
    """Positions have no gradient; nothing is kept for one."""
    keys, values, queries = (x.requires_grad_() for x in tokens(2))

    assert not iwp_core.information_magnitude(keys, values, queries).requires_grad
    assert select_tokens(keys, values, queries, 9).shape == (9,)

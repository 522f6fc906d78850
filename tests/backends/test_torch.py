"""The torch backend: the reference's answers to the last bit, in full precision whatever the surroundings allow."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import iwp_core
from iwp_core import Kernel, TopK, select_tokens, use_backend
from iwp_core.testing import Case, check_case, conformance_cases

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


def double(x: object) -> Any:
    """Make a tensor of float64."""
    return torch.asarray(x, dtype=torch.float64)


CASES = list(conformance_cases(double))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_backend_conforms(case: Case, dtype: Any) -> None:
    """Every function that it may replace answers as the reference does, ties included."""
    if dtype == torch.float32:
        case = next(one for one in conformance_cases(torch.asarray) if one.name == case.name)

    check_case(case, tolerance=1e-12 if dtype == torch.float64 else 1e-5)


def test_every_kernel_has_a_case() -> None:
    """A kernel without a conformance case would go unnoticed."""
    assert set(iwp_torch.kernels) <= {case.function.__name__ for case in CASES}


def test_the_suite_itself_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is off by a thousandth is told apart."""
    right = iwp_torch.kernels["log_norm"]
    wrong = Kernel(run=lambda rows: right.run(rows) + 1e-3)
    (case,) = [case for case in CASES if case.name == "log_norm, 1"]
    monkeypatch.setattr(iwp_torch, "kernels", {"log_norm": wrong})

    with pytest.raises(AssertionError, match="log_norm, 1: the backend answers"):
        check_case(case)


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


def test_tensors_without_data_are_refused_where_nobody_looks_at_them_first() -> None:
    """With ``validate=False`` torch itself would stop in the middle."""
    keys, queries = torch.ones(2, 30, 16, device="meta"), torch.ones(2, 16, device="meta")

    with pytest.raises(TypeError, match="`keys` is on the device meta and has no data"):
        select_tokens(keys, keys, queries, 3, validate=False)

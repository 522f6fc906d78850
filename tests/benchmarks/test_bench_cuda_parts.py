"""Parts of the benchmark: limits, forecasts, tallies, hard tokens, and the clock."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

CPU = torch.device("cpu")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def case_of(total: int, count: int, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Draw candidates of which some are to be kept."""
    tokens = import_module("cuda_tokens")
    generator = torch.Generator().manual_seed(0)
    return tokens.Candidates(tokens.draw(total, generator).to(dtype), count, 32, 4, generator)


def test_the_limits_count_what_algorithm_1_cannot_do_without() -> None:
    """Every pair of a remaining token and a new one, but for the last chunk, counted one by one."""
    selection = import_module("cuda_selection")
    left, size, met = set(range(300)), 2, 0
    chosen = 0
    while chosen < 33:
        newest = sorted(left)[: min(size, 33 - chosen)]
        left -= set(newest)
        chosen += len(newest)
        met += sum(len(left) for _ in newest) if chosen < 33 else 0
        size *= 2
    assert selection.pairs(33, 300) == met

    peaks = selection.Peaks(bytes_per_second=10.0, flops={"bfloat16": 100.0})
    limits = selection.limits(case_of(300, 33), "bfloat16", peaks)
    numbers = (4 * 300 * 128 * 2 + 28 * 128) * 2
    assert limits["bytes read"] == numbers
    assert limits["seconds to read"] == numbers / 10
    # A product of keys and one of values, each 128 multiplications and additions, in 4 heads.
    assert limits["flops"] == met * 4 * 2 * 128 * 2
    assert limits["seconds to compute"] == limits["flops"] / 100


def test_a_series_foretells_from_the_nearest_smaller_size() -> None:
    """By the growth of the rule's work, and nothing without a smaller size."""
    selection = import_module("cuda_selection")
    series = selection.Series(selection.RIVALS["SCOPE"])
    assert series.expected(100, 10) == 0
    series._seen = [(50**2 * 5, 1.0), (100**2 * 10, 3.0), (400**2 * 40, 1000.0)]

    assert series.expected(200, 20) == pytest.approx(3.0 * 8)


@pytest.mark.parametrize(
    ("rule", "obstacle"),
    [
        ("iwp, captured", "CUDA graphs need a GPU"),
        ("iwp, CuPy", "CuPy needs a GPU"),
        ("DivPrune, captured", "CUDA graphs need a GPU"),
        ("SCOPE", "memory: about"),
        ("iwp", None),
    ],
)
def test_a_rule_that_cannot_run_says_why(rule: str, obstacle: str | None) -> None:
    """Memory is compared with what the device has free."""
    selection, clocks = import_module("cuda_selection"), import_module("cuda_clock")

    class Full(clocks.Clock):  # type: ignore[misc, name-defined]  # the scripts are imported by name
        def free_bytes(self) -> int:
            return 1000

    series = selection.Series({**selection.OUR_RULES, **selection.RIVALS}[rule])
    found = series.obstacle(case_of(24, 5), Full(CPU), clocks.Allowance(100))

    assert (found or "").startswith(obstacle or "\0") or found is obstacle


def test_a_rule_too_slow_for_its_patience_is_left_out() -> None:
    """Also one for which too little time is left."""
    selection, clocks = import_module("cuda_selection"), import_module("cuda_clock")
    series = selection.Series(selection.RIVALS["DivPrune"])
    series._seen = [(24.0, 0.6)]

    assert "about 3 s a call" in series.obstacle(case_of(24, 5), clocks.Clock(CPU), clocks.Allowance(100))
    assert series.obstacle(case_of(24, 2), clocks.Clock(CPU), clocks.Allowance(100)) is None
    assert series.obstacle(case_of(24, 2), clocks.Clock(CPU), clocks.Allowance(4)) == "time"


def test_a_rule_that_breaks_is_a_result() -> None:
    """With the error's name, and no timing."""
    selection, clocks = import_module("cuda_selection"), import_module("cuda_clock")

    def broken(_case: Any) -> None:
        msg = "illegal\nsecond line"
        raise RuntimeError(msg)

    series = selection.Series(selection.Rule(run=broken))
    found = series.measure(case_of(24, 5), clocks.Clock(CPU), clocks.Allowance(100), 0.01)

    assert found == {"failed": "RuntimeError: illegal"}


def test_the_spread_is_the_median_with_the_quartiles() -> None:
    """As NumPy's percentiles."""
    times = [5.0, 1.0, 2.0, 8.0, 3.0, 13.0]
    found = import_module("cuda_clock").spread(times)

    names = ("first quartile", "median", "third quartile")
    np.testing.assert_allclose([found[name] for name in names], np.percentile(times, [25, 50, 75]))
    assert found["repeats"] == 6
    assert import_module("cuda_clock").spread([2.0])["third quartile"] == 2.0


def test_a_tally_counts_the_tokens_in_common_over_all_cases() -> None:
    """It notes the worst case, and whether answers repeat."""
    tally = import_module("cuda_correctness").Tally()
    tally.add([np.array([1, 2, 3, 4]), np.array([1, 2, 3, 4])], np.array([1, 2, 3, 5]))
    tally.add([np.arange(6), np.arange(6)], np.arange(6))

    found = tally.result(0.9)
    assert (found["tokens"], found["equal"], found["share"]) == (10, 9, 0.9)
    assert (found["least share of a case"], found["equal between runs"], found["met"]) == (0.75, True, True)
    assert tally.result(0.91)["met"] is False

    tally.add([np.array([7]), np.array([8])], np.array([7]))
    assert tally.result(0.9)["equal between runs"] is False
    assert tally.result(0.9)["met"] is False


def test_a_kernel_that_serves_is_named_and_the_backend_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that declines, as where it cannot be compiled, is not."""
    correctness, tokens = import_module("cuda_correctness"), import_module("cuda_tokens")
    magnitude, backend = import_module("iwp_core.magnitude"), import_module("iwp_torch")
    reference = magnitude.log_magnitude.__wrapped__
    kernels = dict(backend.kernels) | {"log_magnitude": import_module("iwp_core").Kernel(run=reference)}
    monkeypatch.setattr(backend, "kernels", kernels)
    library = correctness.libraries(CPU)["torch"]

    found = correctness._served("torch", library, tokens.draw(20, torch.Generator().manual_seed(0)))

    assert found == {dtype: ["log_magnitude"] for dtype in correctness.BARS}
    assert backend.kernels is kernels


def test_a_call_that_the_device_lets_pass_is_no_same_error() -> None:
    """Nor is one that both let pass."""
    correctness, tokens = import_module("cuda_correctness"), import_module("cuda_tokens")
    small = tokens.draw(20, torch.Generator().manual_seed(0))
    library = correctness.libraries(CPU)["torch"]

    assert correctness._same_error(library, correctness.BAD_CALLS["NaN among the values"], small) == "same"
    fine = correctness._same_error(library, lambda good: (*good.parts, 5), small)
    assert fine == "device: no error; CPU: no error"


def test_hard_tokens_are_as_hard_as_they_are_called() -> None:
    """Biases of norm 300, logits in the hundreds, exact copies, zero vectors."""
    tokens = import_module("cuda_tokens")
    drawn = {kind: make(480, torch.Generator().manual_seed(3)) for kind, make in tokens.KINDS.items()}

    for kind in ("key bias 300", "ties", "blank half", "logits in the hundreds"):
        assert drawn[kind].keys.mean(dim=1).norm(dim=-1).sub(300).abs().max() < 5
    large = drawn["logits in the hundreds"]
    logits = torch.einsum("hgd,hnd->hgn", large.queries.unflatten(0, (4, 7)), large.keys) / math.sqrt(128)
    assert logits.amin() > 300
    both = torch.cat([drawn["ties"].keys, drawn["ties"].values]).transpose(0, 1).flatten(1)
    assert len(both.unique(dim=0)) <= 60
    assert len(drawn["blank half"].values[0, ::2].unique(dim=0)) == 1
    assert (drawn["zero vectors"].values.norm(dim=-1) == 0).sum() == 4 * 160
    assert (drawn["zero vectors"].keys.norm(dim=-1) == 0).sum() == 4 * 96


def test_the_header_does_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no Git is installed, and where there is no repository."""
    harness = import_module("_harness")
    monkeypatch.chdir(tmp_path)
    assert harness.header("run")["commit"] == "unknown"
    monkeypatch.setenv("PATH", "")
    assert harness.header("run")["commit"] == "unknown"


@on_a_gpu
def test_a_captured_selection_is_the_selection() -> None:
    """And replays."""
    selection, clocks = import_module("cuda_selection"), import_module("cuda_clock")
    tokens = import_module("cuda_tokens")
    generator = torch.Generator("cuda").manual_seed(0)
    case = tokens.Candidates(tokens.draw(600, generator), 66, 32, 4, generator)
    rule = selection.RIVALS["DivPrune, captured"]

    replay = clocks.Clock(torch.device("cuda")).captured(lambda: rule.run(case))

    for _ in range(2):
        assert replay().tolist() == rule.run(case).tolist()


@on_a_gpu
def test_host_synchronisations_are_counted() -> None:
    """Two reads of a number, no less."""
    clock = import_module("cuda_clock").Clock(torch.device("cuda"))
    number = torch.ones(1, device="cuda")

    assert clock.host_synchronisations(lambda: (number.item(), number.item())) == 2
    assert clock.host_synchronisations(lambda: number + 1) == 0

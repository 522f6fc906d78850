"""What a CUDA graph can hold: selections that never look at a number go through, all others are refused before."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from iwp_core import MMR, PCMMR, Strategy, Tolerance, TopK, information_magnitude, select_tokens
from iwp_core.above_chance import AboveChance
from iwp_core.choice import Rule
from iwp_core.samples import check_tokens
from iwp_core.select import select_batch

torch = pytest.importorskip("torch", reason="the backend serves torch tensors")
captured = pytest.importorskip("iwp_torch.captured", reason="the backend's package is not installed")
pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture(autouse=True)
def _capturing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a graph is captured, of tensors that have a shape and no numbers; launch nothing.

    Whatever asks a tensor on torch's device "meta" for a number raises, as it would break the capture of a graph.
    """
    from iwp_torch import batch, fused, traced, triton_magnitude, triton_pc_mmr, triton_places

    monkeypatch.setattr(fused, "_triton_serves", lambda _: True)
    monkeypatch.setattr(fused, "_on", lambda _: nullcontext())
    for module in (triton_magnitude, triton_pc_mmr, triton_places):
        monkeypatch.setattr(module, "launch", lambda *_, **__: None)
    for module in (batch, traced):
        monkeypatch.setattr(module, "is_captured", lambda _: True)


def tokens(dtype: Any = torch.bfloat16) -> dict[str, Any]:
    """Return arrays of a batch of two samples of 600 tokens."""
    shapes = {"keys": (2, 4, 600, 64), "values": (2, 4, 600, 64), "queries": (2, 8, 9, 64), "hidden": (2, 600, 256)}
    return {name: torch.zeros(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}


STRATEGIES = [PCMMR(), PCMMR(temper=0.0), MMR(), TopK(), AboveChance(), AboveChance(strategy=TopK())]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("similarity", ["dual", "hidden"])
@pytest.mark.parametrize("heads", ["mean", "softmax_mean", "softmax_mean_per_query", "max", 2.0])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_what_looks_at_a_number_is_refused_and_nothing_else_is(
    strategy: Strategy, heads: str | float, similarity: str, dtype: Any
) -> None:
    """Of every strategy, pooling, similarity and dtype; the reason names what to pass instead."""
    options: dict[str, Any] = {"strategy": strategy, "heads": heads, "similarity": similarity}
    arrays = tokens(dtype)
    samples = check_tokens(**arrays, finite=False, known=False)
    rule = Rule(**options, magnitude="dual", kernel="exponential")

    try:
        # The reference sample by sample, with the kernels of its parts; a whole batch has one if PC-MMR has.
        looks = select_batch.__wrapped__(samples.keys, samples, 66, rule, check=False).shape != (2, 66)
    except (RuntimeError, NotImplementedError):
        looks = True

    assert looks == (captured.why_not_captured(samples, 66, rule) is not None)
    if looks:
        with pytest.raises(NotImplementedError, match=r"while a CUDA graph is captured, .* (expected|Triton kernel)"):
            select_tokens(**arrays, budget=66, validate=False, **options)


def test_the_default_and_all_tokens_are_served() -> None:
    """To keep all, no number is needed, whatever the strategy."""
    assert select_tokens(**tokens(), budget=66, validate=False).shape == (2, 66)
    few = {"strategy": AboveChance(), "similarity": "hidden"}
    samples = check_tokens(**tokens(), finite=False, known=False)
    rule = Rule(**few, magnitude="dual", kernel="exponential", heads="mean")  # type: ignore[arg-type] # names
    assert captured.why_not_captured(samples, 600, rule) is None


REFUSED: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "`validate` is True": (ValueError, {"validate": True}),
    "`budget` is": (NotImplementedError, {"budget": Tolerance(0.1)}),
    "with a `mask`": (NotImplementedError, {"budget": 0.5, "mask": True}),
    "`mask` is given": (NotImplementedError, {"mask": True}),
}


@pytest.mark.parametrize(("reason", "kind", "options"), [(k, *v) for k, v in REFUSED.items()], ids=REFUSED)
def test_what_counts_on_numbers_is_refused_with_what_to_pass(
    reason: str, kind: type[Exception], options: dict[str, Any]
) -> None:
    """Before anything is launched, so that the capture goes on."""
    options = {"budget": 66, "validate": False, **options}
    if "mask" in options:
        options["mask"] = torch.ones(2, 600, dtype=torch.bool, device="meta")

    with pytest.raises(kind, match=f"{reason}.*expected"):
        select_tokens(**tokens(), **options)


def test_measures_are_refused() -> None:
    """They check the data."""
    arrays = tokens()

    with pytest.raises(NotImplementedError, match="`keys` is traced"):
        information_magnitude(arrays["keys"], arrays["values"], arrays["queries"])


def test_tensors_on_a_cpu_are_never_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of this thread's stream has nothing to do with them."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    assert not captured.is_captured(torch.zeros(1))

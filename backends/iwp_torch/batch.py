"""Which whole selections the backend takes over, and by what: an operator where torch traces, Triton on a GPU."""

from typing import Any

from torch import Tensor

from iwp_core import Tolerance
from iwp_core.kernels import Rule, Samples
from iwp_torch import fused, traced

__all__ = ["select_batch", "supports_select_batch"]


def supports_select_batch(
    keys: Tensor, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any
) -> bool:
    """Return whether `select_batch` serves a call."""
    return traced.supports_select_batch(keys, samples, budget, rule) or fused.supports_select_batch(
        samples, budget, rule
    )


def select_batch(keys: Tensor, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any) -> Tensor:
    """Choose; see `iwp_core.kernels.select_batch`."""
    if traced.supports_select_batch(keys, samples, budget, rule):
        return traced.select_batch(keys, samples, budget, rule)
    return fused.select_batch(samples, budget, rule)

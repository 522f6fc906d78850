"""Which whole selections the backend takes over, and by what: an operator where torch traces, Triton on a GPU."""

from typing import Any

from torch import Tensor

from iwp_core import Tolerance
from iwp_core._arrays import why_unusable
from iwp_core.kernels import Rule, Samples
from iwp_torch import fused, traced
from iwp_torch.captured import is_captured, why_not_captured

__all__ = ["select_batch", "supports_select_batch"]


def supports_select_batch(
    keys: Tensor, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any
) -> bool:
    """Return whether `select_batch` serves a call, or has to say why nothing can."""
    return (
        traced.supports_select_batch(keys, samples, budget, rule)
        or fused.supports_select_batch(samples, budget, rule)
        or keys.is_meta
        or (is_captured(keys) and why_not_captured(samples, budget, rule) is not None)
    )


def select_batch(keys: Tensor, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any) -> Tensor:
    """Choose; see `iwp_core.kernels.select_batch`.

    Raises
    ------
    TypeError
        If tensors have no data, which nobody looks at before where `validate` is False.
    NotImplementedError
        While a CUDA graph is captured, if the host would have to look at a number.
    """
    if traced.supports_select_batch(keys, samples, budget, rule):
        return traced.select_batch(keys, samples, budget, rule)
    if is_captured(keys) and (why := why_not_captured(samples, budget, rule)) is not None:
        msg = f"while a CUDA graph is captured, {why}"
        raise NotImplementedError(msg)
    if keys.is_meta and not fused.supports_select_batch(samples, budget, rule):
        msg = f"`keys` {why_unusable(keys)}"
        raise TypeError(msg)
    return fused.select_batch(samples, budget, rule)

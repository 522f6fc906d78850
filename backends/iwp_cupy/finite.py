"""Whether an array is finite, in one pass and without an array of answers half as large as the array."""

from functools import cache
from typing import Any

from iwp_cupy.compiled import cupy

__all__ = ["all_finite"]


def all_finite(array: Any) -> bool:
    """Return whether an array holds neither NaN nor infinity; waits for the device once."""
    return bool(_reduction()(array))


@cache
def _reduction() -> Any:
    return cupy().ReductionKernel("T x", "bool y", "isfinite(x)", "a && b", "y = a", "true", "iwp_all_finite")

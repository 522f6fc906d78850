"""How Triton kernels are started: the one place that knows what all launches have in common."""

from typing import Any

__all__ = ["launch"]


def launch(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
    """Start a kernel on the current device.

    Fusing products with sums is asked for by name: Triton 3.9 warns of a coming change of its default.
    """
    kernel[grid](**arguments, enable_fp_fusion=True)

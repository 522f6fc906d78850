"""Keeps torch from computing with less precision than the dtypes say while tokens are selected."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

__all__ = ["full_precision"]

FULL = "ieee"


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch off gradients, autocast and reduced-precision float32 products; restore all three on any exit.

    Under autocast a float32 product returns bfloat16, and with TF32 or bfloat16 products allowed it keeps 8 to 11 bits:
    either makes the order of tokens arbitrary where query-key products reach the hundreds.
    """
    with torch.no_grad(), ExitStack() as stack:
        for device in ("cpu", torch.accelerator.current_accelerator()):
            if device is not None:
                kind = device if isinstance(device, str) else device.type
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
        for backend in (torch.backends.cuda, torch.backends.mkldnn):
            _set_precision(stack, getattr(backend, "matmul"), FULL)  # noqa: B009 - missing in torch's stubs
        yield


def _set_precision(stack: ExitStack, backend: Any, wanted: str) -> None:
    """Set a backend's float32 product precision until the stack closes."""
    before = backend.fp32_precision
    if before != wanted:
        stack.callback(setattr, backend, "fp32_precision", before)
        backend.fp32_precision = wanted

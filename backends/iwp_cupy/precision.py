"""Keeps CuPy from multiplying float32 matrices with less precision than the dtype says while tokens are selected."""

from collections.abc import Iterator
from contextlib import contextmanager

from iwp_cupy.compiled import cupy

__all__ = ["full_precision"]

DEFAULT = 1
"""cuBLAS's own float32 products; CUPY_TF32=1 and `set_compute_type` ask for others."""


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch off reduced-precision float32 products, and restore them on any exit.

    The kernels of this backend multiply nothing with cuBLAS; what the reference computes on CuPy does.
    """
    settings = cupy()._core  # private, but the one place where CuPy keeps the setting
    before = settings.get_compute_type("float32")
    if before == DEFAULT:
        yield
        return
    settings.set_compute_type("float32", DEFAULT)
    try:
        yield
    finally:
        settings.set_compute_type("float32", before)

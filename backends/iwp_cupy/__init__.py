"""CuPy backend of `iwp_core`.

CuPy arrays follow the Array API, so the core's reference code runs on them as it is; no kernel replaces it yet.
"""

from collections.abc import Mapping

from iwp_core import Kernel

__all__ = ["kernels", "name"]

name = "cupy"

kernels: Mapping[str, Kernel] = {}

"""PyTorch backend of `iwp_core`."""
from collections.abc import Mapping
from iwp_core._plugins import Kernel
name = "torch"
kernels: Mapping[str, Kernel] = {}

"""The CUDA kernels, compiled by CuPy on first use for each device and pair of element types."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

__all__ = ["compiled", "cupy", "launch", "same_precision", "served", "token_arguments"]

ELEMENTS = {"float16": "Half", "float32": "float", "float64": "double"}
"""Dtypes served, as the CUDA source names them."""

OPTIONS = ("-std=c++17", "--fmad=false")

KERNELS = (
    "score_heads",
    "sum_heads",
    "pool_heads",
    "scale_scores",
    "invert_norms",
    "choose_chunk",
    "compare_chunk",
    "order_chunks",
)


def cupy() -> Any:
    """Return the library. Not imported above, so that tools can read these modules where it is not installed."""
    return import_module("cupy")


def same_precision(*arrays: Any) -> bool:
    """Return whether all arrays are of dtypes served and computed with in float32, or all in float64."""
    names = {array.dtype.name for array in arrays}
    return names == {"float64"} or names <= {"float16", "float32"}


def served(first: Any, second: Any) -> bool:
    """Return whether `compiled` has kernels for two arrays of tokens: their dtypes fit, and their device compiles."""
    return same_precision(first, second) and _compiles(first.device.id, first.dtype.name, second.dtype.name)


def compiled(first: Any, second: Any) -> Mapping[str, Any]:
    """Return the kernels by name for two arrays of tokens that are `served`."""
    return _compile(first.device.id, first.dtype.name, second.dtype.name)


@cache
def _compiles(device: int, first: str, second: str) -> bool:
    try:
        _compile(device, first, second)
    except Exception:  # a missing or old NVRTC and an old card each raise their own; the reference runs then
        return False
    return True


@cache
def _compile(device: int, first: str, second: str) -> Mapping[str, Any]:
    source = files("iwp_cupy").joinpath("kernels.cu").read_text(encoding="utf-8")
    options = (*OPTIONS, f"-DFIRST={ELEMENTS[first]}", f"-DSECOND={ELEMENTS[second]}")
    with cupy().cuda.Device(device):
        module = cupy().RawModule(code=source, options=options)
        return {name: module.get_function(name) for name in KERNELS}


def launch(kernel: Any, blocks: int, threads: int, *arguments: Any) -> None:
    """Start a kernel on the current stream; an int goes as long long, a float as double, None as a null pointer."""
    kernel((blocks,), (threads,), tuple(0 if argument is None else argument for argument in arguments))


def token_arguments(tokens: Any) -> tuple[Any, ...]:
    """Return what kernels take for tokens (B, H, N, D): the array, its strides in elements, its width."""
    return tokens, *(stride // tokens.itemsize for stride in tokens.strides), tokens.shape[-1]

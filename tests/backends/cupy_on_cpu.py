"""CuPy played by NumPy, with kernels compiled for the CPU: what the backend does on a device, step by step."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwp_core import _plugins

SHIM = Path(__file__).with_name("cuda_on_cpu.hpp")

FLAGS = (
    *("-std=c++20", "-O2", "-shared", "-fPIC", "-w"),
    *("-march=native", "-ffp-contract=off"),  # `fma` as one instruction where there is one, and no other contraction
    "-U_FORTIFY_SOURCE",  # it takes a jump to another thread's stack for an error
)


class Device:
    """Device 0."""

    id = 0

    def __init__(self, number: int = 0) -> None:
        assert number == 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class ndarray(np.ndarray):
    """A NumPy array that passes for CuPy's and counts how often its data is read on the host."""

    reads = 0

    device = Device()

    def _read(name: str) -> Any:
        def method(self: ndarray, *arguments: Any) -> Any:
            ndarray.reads += 1
            return getattr(np.ndarray, name)(self, *arguments)

        return method

    __bool__, __int__, __float__, __index__ = map(_read, ("__bool__", "__int__", "__float__", "__index__"))
    item, tolist = map(_read, ("item", "tolist"))
    del _read


ndarray.__module__ = "cupy"


class RawModule:
    """Compiles a CUDA source with g++ behind the shim."""

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        self.library = compile_for_cpu(code, tuple(option for option in options if option.startswith("-D")))

    def get_function(self, name: str) -> Any:
        """Return a kernel that is called as CuPy's are."""
        run = getattr(self.library, f"launch_{name}")
        return lambda grid, block, arguments: start(run, name, grid, block, arguments)


def start(run: Any, name: str, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
    """Call a kernel as `cudaLaunchKernel` does, with pointers to its arguments; types as CuPy converts them."""
    assert len(arguments) == run.parameters, f"{name} takes {run.parameters} arguments"
    values = [argument_value(argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    assert run(grid[0], block[0], pointers) == 0, f"{name}: threads of a block part ways at a barrier"


def argument_value(argument: Any) -> Any:
    """Return an argument of a kernel as C holds it."""
    if isinstance(argument, ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return {int: ctypes.c_longlong, float: ctypes.c_double}[type(argument)](argument)


@cache
def compile_for_cpu(code: str, macros: tuple[str, ...]) -> Any:
    """Return a library with a function launch_<name>(blocks, threads, arguments) for each kernel of a source."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the kernels for the CPU with")
    kernels = KERNEL.findall(code)
    flush = int("-DFIRST=double" not in macros)
    exports = "\n".join(
        f'extern "C" int launch_{name}(unsigned blocks, unsigned threads, void** arguments)'
        f" {{ return launch({name}, blocks, threads, arguments); }}"
        f'extern "C" const int parameters_{name} = parameters_of({name});'
        for name in kernels
    )
    with TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        source.write_text(f'#define FLUSH {flush}\n#include "{SHIM}"\n{code}\n{exports}\n', encoding="utf-8")
        result = subprocess.run(
            [compiler, *FLAGS, *macros, str(source), "-o", str(binary)], capture_output=True, text=True, check=False
        )
        if result.returncode:
            pytest.fail(f"g++ rejects the kernels: {result.stderr[:3000]}")
        library = ctypes.CDLL(str(binary))
    for name in kernels:
        getattr(library, f"launch_{name}").parameters = ctypes.c_int.in_dll(library, f"parameters_{name}").value
    return library


KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(')


def all_finite_kernel(*definition: str) -> Any:
    """Play the one `ReductionKernel` that the backend defines."""
    assert definition[2:6] == ("isfinite(x)", "a && b", "y = a", "true")
    return lambda array: np.all(np.isfinite(array))


def stand_in() -> ModuleType:
    """Make a module with what the backend uses of CuPy."""
    library: Any = ModuleType("cupy")

    def made(create: Any) -> Any:
        return lambda *arguments, **options: create(*arguments, **options).view(ndarray)

    def rubbish(shape: tuple[int, ...], dtype: Any) -> Any:
        return np.full(np.prod(shape) * np.dtype(dtype).itemsize, 0xAB, dtype="uint8").view(dtype).reshape(shape)

    library.ndarray, library.RawModule, library.ReductionKernel = ndarray, RawModule, all_finite_kernel
    library.empty, library.empty_like = made(rubbish), made(lambda like: rubbish(like.shape, like.dtype))
    for name in ("arange", "array", "ascontiguousarray", "full", "full_like", "minimum", "take_along_axis", "where"):
        setattr(library, name, made(getattr(np, name)))
    library.zeros_like = made(np.zeros_like)
    library.cuda = SimpleNamespace(Device=Device)
    library._core = SimpleNamespace(get_compute_type=lambda dtype: 1)
    return library


def skip_if_not_registered() -> None:
    """Skip a test where the backend would not be found, so that the reference would pass for it."""
    if not entry_points(group=_plugins.GROUP, name="cupy"):
        pytest.skip("the distribution iwp, which registers the backend, is not installed")


@contextmanager
def installed(library: ModuleType) -> Iterator[Mapping[str, Any]]:
    """Let a stand-in be CuPy, and the backend be loaded anew for it; yields the backend's kernels."""
    skip_if_not_registered()
    ours = [name for name in sys.modules if name.partition(".")[0] in {"cupy", "iwp_cupy"}]
    aside = {name: sys.modules.pop(name) for name in ours}
    sys.modules["cupy"] = library
    _plugins.forget()
    try:
        yield import_module("iwp_cupy").kernels
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in {"cupy", "iwp_cupy"}]:
            del sys.modules[name]
        sys.modules.update(aside)
        _plugins.forget()

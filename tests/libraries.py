"""The array libraries under test: how to make an array of each, and how to read one back."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from tests.strategies import Pool, Tokens, fixed_samples, pools, samples

Array: TypeAlias = Any
"""An array of any library; the array API standard names no base class."""

DType: TypeAlias = Any
"""A dtype of any library."""

COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "jax"
"""Where JAX keeps the programs that it has compiled for these tests."""

LIBRARIES = ("numpy", "array_api_strict", "torch", "jax.numpy", "cupy")


@dataclass(frozen=True, kw_only=True)
class Library:
    """One array library: its namespace, and the conversions that the array API standard leaves out."""

    name: str
    namespace: ModuleType
    array_type: type
    halves: tuple[str, ...] = ()
    read: Callable[[Array], NDArray[Any]] = np.asarray
    slow_to_compile: bool = False

    def dtype(self, name: str) -> DType:
        """Return the library's own dtype of that name."""
        return getattr(self.namespace, name)

    def array(self, x: object, dtype: str | None = None) -> Array:
        """Turn nested lists or a NumPy array into an array of this library."""
        source = np.asarray(x)
        name = dtype or str(source.dtype)
        if name in self.halves:
            # Through float32: NumPy has no bfloat16 and some libraries read no float16. Rounded first where NumPy can,
            # since a number that is rounded twice may not be the one that the oracle reads.
            source = source.astype(np.float16) if name == "float16" else source
            single = self.namespace.asarray(source.astype(np.float32))
            return single.to(self.dtype(name)) if self.name == "torch" else single.astype(self.dtype(name))
        return self.namespace.asarray(source, dtype=self.dtype(name))

    def numpy(self, x: Array) -> NDArray[Any]:
        """Read an array of this library as a NumPy array; half precision comes back as float32."""
        return self.read(x)

    def arrays(self, tokens: Tokens, dtype: str = "float64") -> tuple[Array, Array, Array]:
        """Return a sample's keys, values and queries."""
        return tuple(self.array(x, dtype) for x in (tokens.keys, tokens.values, tokens.queries))  # type: ignore[return-value]

    def samples(self) -> SearchStrategy[Tokens]:
        """Generate samples of every shape, or of one where each new shape would be compiled."""
        return fixed_samples() if self.slow_to_compile else samples()

    def pools(self, max_tokens: int = 20) -> SearchStrategy[Pool]:
        """Generate pools of every size, or of one where each new shape would be compiled."""
        return pools(min_tokens=6, max_tokens=6) if self.slow_to_compile else pools(max_tokens=max_tokens)

    def skip_if_shapes_are_compiled(self) -> None:
        """Skip a test of many shapes where each costs a compilation, unless the thorough profile is asked for."""
        if self.slow_to_compile and os.environ.get("HYPOTHESIS_PROFILE") != "thorough":
            pytest.skip(f"{self.name} compiles hundreds of shapes here, for a minute: HYPOTHESIS_PROFILE=thorough")

    def lookup(self, table: NDArray[Any]) -> Callable[[Array, Array], Array]:
        """Make the duplication callable of the Strategy protocol, answered from a full matrix."""
        full = self.array(table)
        take = array_namespace(full).take
        return lambda rows, cols: take(take(full, rows, axis=0), cols, axis=1)


def _read_torch(x: Array) -> NDArray[Any]:
    x = x.detach().cpu()
    return np.asarray(x.float() if x.dtype.itemsize == 2 and x.is_floating_point() else x)


def _read_jax(x: Array) -> NDArray[Any]:
    return np.asarray(x.astype("float32") if x.dtype.name in {"bfloat16", "float16"} else x)


def _read_cupy(x: Array) -> NDArray[Any]:
    return np.asarray(x.get())


def load(name: str) -> Library:
    """Import one of `LIBRARIES`, or skip the test with the reason."""
    namespace = pytest.importorskip(name, reason=f"{name} is not installed")
    if name == "torch":
        # The suite shares its cores with others, and threads do not pay at these sizes.
        namespace.set_num_threads(1)
        return Library(
            name=name,
            namespace=namespace,
            array_type=namespace.Tensor,
            halves=("float16", "bfloat16"),
            read=_read_torch,
        )
    if name == "jax.numpy":
        jax = importlib.import_module("jax")
        # Without it JAX has neither float64 nor int64; one test of its own switches it off again.
        jax.config.update("jax_enable_x64", True)
        # Small programs run no faster for it, and take twice as long to compile.
        jax.config.update("jax_disable_most_optimizations", True)
        # What one worker of a run has compiled, the others and later runs read.
        jax.config.update("jax_compilation_cache_dir", str(COMPILED))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        return Library(
            name=name,
            namespace=namespace,
            array_type=jax.Array,
            halves=("float16", "bfloat16"),
            read=_read_jax,
            slow_to_compile=True,
        )
    if name == "cupy":
        if not namespace.is_available():
            pytest.skip("CuPy finds no CUDA device")
        return Library(
            name=name, namespace=namespace, array_type=namespace.ndarray, halves=("float16",), read=_read_cupy
        )
    halves = ("float16",) if name == "numpy" else ()
    array_type = np.ndarray if name == "numpy" else type(namespace.asarray(0.0))
    return Library(name=name, namespace=namespace, array_type=array_type, halves=halves)

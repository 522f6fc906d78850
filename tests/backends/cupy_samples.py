"""CuPy or its stand-in with the backend loaded, and what the oracle keeps of a sample."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iwp_core import Kernel, select_tokens
from iwp_core.comparison import Duplication
from tests import oracles
from tests.backends import cupy_on_cpu
from tests.libraries import load
from tests.strategies import Tokens

__all__ = ["DTYPES", "CuPy", "Floats", "cp", "dtypes", "kept_by_the_oracle", "log_magnitude", "rounded"]

DTYPES = ("float16", "float32", "float64")
dtypes = pytest.mark.parametrize("dtype", DTYPES)

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CuPy:
    """CuPy or its stand-in, and the backend's kernels as loaded for it."""

    kernels: Mapping[str, Kernel]
    array: Callable[..., Any]
    numpy: Callable[[Any], NDArray[Any]]

    def arrays(self, tokens: Tokens, dtype: str) -> tuple[Any, Any, Any]:
        """Return a sample's keys, values and queries."""
        return self.array(tokens.keys, dtype), self.array(tokens.values, dtype), self.array(tokens.queries, dtype)

    def select(self, tokens: Tokens, budget: float, dtype: str = "float64", **options: Any) -> NDArray[Any]:
        """Select among a sample's tokens, and make sure that the kernels serve them."""
        arrays = self.arrays(tokens, dtype)
        assert self.serves(*arrays)
        return self.numpy(select_tokens(*arrays, budget, **options))

    def serves(self, keys: Any, values: Any, queries: Any) -> bool:
        """Return whether the kernels, not the reference, would run."""
        scores = self.array(np.zeros(keys.shape[-2]), "float64" if keys.dtype == "float64" else "float32")
        duplication = Duplication(keys, values, None, metric="dual", kernel="exponential")
        options = {"metric": "dual", "kernel": "exponential", "heads": "mean"}
        return self.kernels["log_magnitude"].supports(keys, values, queries, **options) and self.kernels[
            "progressive_chunked_mmr"
        ].supports(scores, duplication, [1], penalty=5.0, floor=0.01, exponent=2)


@pytest.fixture(scope="module", params=["on the CPU", "on CUDA"])
def cp(request: pytest.FixtureRequest) -> Iterator[CuPy]:
    """Give the stand-in, then CuPy itself where there is a device."""
    if request.param == "on CUDA":
        library = load("cupy")
        cupy_on_cpu.skip_if_not_registered()
        iwp_cupy = importlib.import_module("iwp_cupy")
        yield CuPy(kernels=iwp_cupy.kernels, array=library.array, numpy=library.numpy)
        return
    with cupy_on_cpu.installed(cupy_on_cpu.stand_in()) as kernels:
        yield CuPy(
            kernels=kernels,
            array=lambda x, dtype=None: np.array(x, dtype=dtype).view(cupy_on_cpu.ndarray),
            numpy=np.asarray,
        )


def rounded(tokens: Tokens, dtype: str) -> Tokens:
    """Return a sample as a dtype holds it."""
    return tokens.rounded(dtype, lambda x, dtype: x.astype(dtype))


def log_magnitude(tokens: Tokens, **options: str) -> Floats:
    """Return the oracle's magnitude; where a score of zero makes its differences NaN, the scaled score is zero too."""
    with np.errstate(invalid="ignore"):
        scores = oracles.log_magnitude(tokens.queries, tokens.keys, tokens.values, **options)
    return np.where(np.isnan(scores), -np.inf, scores)


def kept_by_the_oracle(tokens: Tokens, count: int, dtype: str = "float64", **options: Any) -> list[int]:
    """Return the oracle's answer on inputs rounded to a dtype."""
    seen = rounded(tokens, dtype)
    pairs = oracles.lazy_duplication(seen.keys, seen.values)
    return sorted(oracles.pc_mmr(log_magnitude(seen), pairs, count, **options))

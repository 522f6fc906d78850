"""What only a CUDA device can show of the CuPy backend: types, repeatability, memory. Answers: test_cupy.py."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from iwp_core import select_tokens
from tests.backends.cupy_on_cpu import skip_if_not_registered
from tests.libraries import Library, load
from tests.strategies import sample


@pytest.fixture(scope="module")
def device() -> Library:
    """Give CuPy, or skip."""
    library = load("cupy")
    skip_if_not_registered()
    return library


def random_tokens(device: Library, tokens: int, dtype: str, width: int = 128) -> tuple[Any, Any, Any]:
    """Draw keys and values of 4 heads, and 28 queries, on the device."""
    generator = device.namespace.random.default_rng(0)
    shapes = ((4, tokens, width), (4, tokens, width), (28, width))
    return tuple(generator.standard_normal(shape, dtype="float32").astype(dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_positions_are_cupys_int64_on_the_device_of_the_keys(device: Library, dtype: str) -> None:
    """Ready to index the keys with."""
    keys, values, queries = device.arrays(sample(0, tokens=50), dtype)

    kept = select_tokens(keys, values, queries, 0.222)

    assert isinstance(kept, device.array_type)
    assert (kept.dtype, kept.shape, kept.device) == (np.int64, (11,), keys.device)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_answers_are_equal_between_runs(device: Library, dtype: str) -> None:
    """Threads meet in another order every time; the answer does not show it."""
    arrays = random_tokens(device, 7290, dtype)

    first = device.numpy(select_tokens(*arrays, 809))

    for _ in range(5):
        np.testing.assert_array_equal(device.numpy(select_tokens(*arrays, 809)), first)


def test_a_million_tokens_take_less_than_a_gibibyte(device: Library) -> None:
    """Beside the inputs; the pool refuses more. Narrow tokens, as the memory does not depend on their width."""
    cuda: Any = importlib.import_module("cupy").cuda
    arrays = random_tokens(device, 1_000_000, "float16", width=8)
    pool = cuda.MemoryPool()
    pool.set_limit(size=2**30)

    with cuda.using_allocator(pool.malloc):
        kept = device.numpy(select_tokens(*arrays, 111_000))

    assert kept.shape == (111_000,)
    assert (np.diff(kept) > 0).all()
    assert kept[0] >= 0
    assert kept[-1] < 1_000_000

"""What the CuPy backend does on the host: it falls back, waits for nothing, holds O(N), and guards precision.

Also that the stand-in for a device can tell right kernels from wrong ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwp_core import TopK, information_duplication, select_tokens
from tests import oracles
from tests.backends import cupy_on_cpu
from tests.backends.cupy_on_cpu import ndarray
from tests.strategies import Tokens, sample


def arrays(tokens: Tokens, dtype: str = "float32") -> list[Any]:
    """Return a sample as the stand-in's arrays."""
    return [x.astype(dtype).view(ndarray) for x in (tokens.keys, tokens.values, tokens.queries)]


@pytest.fixture
def library() -> Any:
    """Give a stand-in that a test may change before it installs it."""
    return cupy_on_cpu.stand_in()


@pytest.fixture
def on_cpu(library: Any) -> Iterator[None]:
    """Install the stand-in."""
    with cupy_on_cpu.installed(library):
        yield


@pytest.mark.parametrize("error", [RuntimeError("no NVRTC"), ImportError("libnvrtc"), OSError("too old a card")])
def test_where_the_kernels_do_not_compile_the_reference_answers(library: Any, error: Exception) -> None:
    """Compilation is tried once, not at every call; nothing is raised."""
    tried = []

    def broken(**_options: Any) -> None:
        tried.append(1)
        raise error

    library.RawModule = broken
    tokens = sample(0, tokens=80, clusters=15)

    with cupy_on_cpu.installed(library):
        kept = [select_tokens(*arrays(tokens, "float64"), 20) for _ in range(2)]

    assert len(tried) == 1
    for answer in kept:
        np.testing.assert_array_equal(answer, oracles.select_tokens(tokens.queries, tokens.keys, tokens.values, 20))


@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
@pytest.mark.parametrize("masked", [False, True])
def test_thirty_two_samples_take_the_launches_of_one(library: Any, masked: bool, heads: str) -> None:
    """The batch is an axis of every kernel; with a mask the host waits twice, for one sample as for many."""
    launched: list[str] = []

    class Counted(library.RawModule):
        """A module that notes which kernels start."""

        def get_function(self, name: str) -> Any:
            """Return a kernel."""
            run = super().get_function(name)
            return lambda *arguments: (launched.append(name), run(*arguments))

    library.RawModule = Counted
    tokens = sample(1, tokens=60, clusters=9)
    counted = []
    with cupy_on_cpu.installed(library):
        for samples in (1, 32):
            batch = [np.repeat(x[None], samples, axis=0).view(ndarray) for x in arrays(tokens)]
            mask = np.ones((samples, 60), dtype=bool).view(ndarray) if masked else None
            launched.clear()
            ndarray.reads = 0
            kept = select_tokens(*batch, 20, heads=heads, mask=mask, validate=False)
            counted.append((list(launched), ndarray.reads))
            assert (kept == kept[:1]).all()

    assert counted[0] == counted[1]
    assert counted[0][1] == 2 * masked
    assert len(counted[0][0]) < 16


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
def test_a_selection_without_checks_reads_nothing_back(heads: str) -> None:
    """So the host runs ahead of the device from the first launch to the last."""
    given = arrays(sample(1, tokens=300, clusters=30))

    ndarray.reads = 0
    select_tokens(*given, 66, validate=False, heads=heads)
    unchecked = ndarray.reads
    bool(given[0].sum(keepdims=True).view(ndarray) > 0)

    assert unchecked == 0
    assert ndarray.reads == 1, "the stand-in no longer counts: this test shows nothing"


def test_memory_beside_the_inputs_is_linear_in_tokens(library: Any) -> None:
    """Per token: 8 bytes a query head, 4 a key/value head, and 50 more; nothing grows with the chunk."""
    held = []

    def counted(create: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            array = create(*arguments, **options)
            held.append(array.nbytes)
            return array

        return run

    for name in ("empty", "empty_like", "zeros_like", "arange"):
        setattr(library, name, counted(getattr(library, name)))
    given = arrays(sample(2, tokens=900, heads=2, group=3, width=4, value_width=4))

    with cupy_on_cpu.installed(library):
        select_tokens(*given, 400)

    assert 900 * 8 * 6 < sum(held) < 900 * (8 * 6 + 4 * 2 + 50)


class Settings(SimpleNamespace):
    """CuPy's switch for float32 products, and what it was set to."""

    def get_compute_type(self, dtype: str) -> int:
        """Return the setting."""
        assert dtype == "float32"
        return self.history[-1]

    def set_compute_type(self, dtype: str, kind: int) -> None:
        """Note the setting."""
        assert dtype == "float32"
        self.history.append(kind)


@pytest.mark.parametrize("before", [1, 7])
@pytest.mark.parametrize("fails", [False, True])
def test_tf32_is_off_within_a_call_and_as_before_after_it(library: Any, before: int, fails: bool) -> None:
    """Also where the call ends by an exception."""
    library._core = Settings(history=[before])
    seen = []

    class Spy(TopK):
        """A strategy that notes the setting under which it runs, and may fail."""

        def select(self, log_magnitude: Any, duplication: Any, count: int) -> Any:
            """Note the setting, then choose by magnitude."""
            seen.append(library._core.history[-1])
            if fails:
                msg = "a strategy that fails"
                raise ZeroDivisionError(msg)
            return super().select(log_magnitude, duplication, count)

    with cupy_on_cpu.installed(library), pytest.raises(ZeroDivisionError) if fails else nullcontext():
        select_tokens(*arrays(sample(3)), 5, strategy=Spy())

    assert seen == [1]
    assert library._core.history[-1] == before


@pytest.mark.usefixtures("on_cpu")
def test_what_no_kernel_replaces_runs_as_the_reference() -> None:
    """Blocks of the duplication are CuPy's own products."""
    tokens = sample(4)
    keys, values, _ = arrays(tokens, "float64")

    np.testing.assert_allclose(
        information_duplication(keys, values), oracles.duplication(tokens.keys, tokens.values), atol=1e-12
    )


REVERSE = """
extern "C" __global__ void reverse(const double* x, double* y) {
    __shared__ double copy[64];
    copy[threadIdx.x] = x[threadIdx.x];
    BARRIER;
    y[threadIdx.x] = copy[63 - threadIdx.x];
}
"""


def reverse(barrier: str) -> Any:
    """Reverse 0..63 through shared memory with something in place of a barrier."""
    module = cupy_on_cpu.RawModule(code=REVERSE.replace("BARRIER", barrier), options=("-DFIRST=double",))
    x, y = np.arange(64.0).view(ndarray), np.zeros(64).view(ndarray)
    module.get_function("reverse")((1,), (64,), (x, y))
    return y


def test_the_stand_in_shows_a_missing_barrier() -> None:
    """With a barrier 64 threads reverse an array, without one they read what was not written yet."""
    np.testing.assert_array_equal(reverse("__syncthreads()"), np.arange(64.0)[::-1])
    assert not np.array_equal(reverse(""), np.arange(64.0)[::-1])


def test_the_stand_in_shows_a_barrier_that_some_threads_miss() -> None:
    """That hangs or is undefined on a device."""
    with pytest.raises(AssertionError, match="part ways at a barrier"):
        reverse("if (threadIdx.x < 32) __syncthreads()")

"""The torch backend's way to Triton: when it is taken, that it never waits for the device, and that kernels compile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from iwp_core import PCMMR, select_tokens
from iwp_core.comparison import Duplication
from iwp_core.identical import first_identical

torch = pytest.importorskip("torch", reason="the backend serves torch tensors")
iwp_torch = pytest.importorskip("iwp_torch", reason="the backend's package is not installed")
fused = pytest.importorskip("iwp_torch.fused")

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
ROOT = Path(__file__).parents[2]


@needs_triton
@pytest.mark.parametrize(("file", "least"), [("interpreted_triton.py", 100), ("interpreted_triton_batch.py", 10)])
def test_the_kernels_pass_their_tests_in_the_interpreter(file: str, least: int) -> None:
    """In a process of their own: the interpreter must be on before Triton is imported."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # the interpreter computes on the CPU
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/backends/{file}"]

    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) > least
    assert "skipped" not in run.stdout


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Pretend that there is a CUDA card; give a function that says of what capability."""
    fused._triton_serves.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def insert(*capability: int) -> Any:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        return torch.device("cuda", 0)

    yield insert
    fused._triton_serves.cache_clear()


@needs_triton
@pytest.mark.parametrize(
    ("capability", "served"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), True), ((12, 0), True)]
)
def test_cards_whose_tensor_cores_multiply_bfloat16_are_served(
    card: Any, capability: tuple[int, int], served: bool
) -> None:
    """Older ones run the reference."""
    assert fused._triton_serves(card(*capability)) is served


@pytest.mark.parametrize("version", [None, "3.3.1", "2.1.0"])
def test_without_a_recent_triton_the_reference_runs(
    card: Any, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    """Whether it is missing or too old; the plugin loads all the same."""
    stub = None
    if version is not None:
        # Loaded before, so that nothing but the version is in the way.
        pytest.importorskip("iwp_torch.triton_factors", reason="Triton is not installed")
        stub = type(sys)("triton")
        stub.__version__ = version
    monkeypatch.setitem(sys.modules, "triton", stub)

    assert not fused._triton_serves(card(9, 0))


def test_other_makers_cards_and_other_devices_are_not_served(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's cards call themselves CUDA devices too, but know no TF32."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    device = card(9, 0)
    monkeypatch.setattr(torch.version, "cuda", None)

    assert not fused._triton_serves(device)
    assert not fused._triton_serves(torch.device("cpu"))
    assert not fused._triton_serves(torch.device("meta"))


def test_inputs_on_the_cpu_do_not_import_triton() -> None:
    """It takes long to import, and has nothing to do there."""
    code = (
        "import sys, torch, iwp_core; x = torch.randn(2, 40, 16);"
        "iwp_core.select_tokens(x, x, x[:, 0], 9);"
        "assert 'iwp_torch' in sys.modules; assert 'triton' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr


def tokens(total: int, dtype: Any = None, *, device: str = "meta") -> tuple[Any, Any, Any]:
    """Return keys, values and text queries of one sample at a model's shapes."""
    dtype = dtype or torch.bfloat16
    keys, values = (torch.zeros(4, total, 128, dtype=dtype, device=device) for _ in range(2))
    return keys, values, torch.zeros(28, 64, 128, dtype=dtype, device=device)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve tensors without data, and launch nothing but note the launches.

    A tensor on torch's device "meta" has a shape and no numbers: whatever asks for one of its numbers, or for a shape
    that depends on them, raises. What runs on it waits for no device.
    """
    pytest.importorskip("triton", reason="Triton is not installed")
    from iwp_torch import triton_magnitude, triton_pc_mmr, triton_places

    launches: list[str] = []
    monkeypatch.setattr(fused, "_triton_serves", lambda _: True)
    monkeypatch.setattr(fused, "_on", lambda _: nullcontext())
    for module in (triton_magnitude, triton_pc_mmr, triton_places):
        monkeypatch.setattr(module, "launch", lambda kernel, grid, **_: launches.append(kernel.__name__))
    return launches


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
@pytest.mark.parametrize(("total", "similarity"), [(7290, "dual"), (7290, "key"), (40_000, "dual")])
def test_a_selection_never_looks_at_a_number(
    recorded: list[str], total: int, similarity: str, heads: str, dtype: Any
) -> None:
    """From the call to the positions, so that it can be captured in a CUDA graph."""
    keys, values, queries = tokens(total, dtype)

    kept = select_tokens(
        keys[None], values[None], queries[None], 0.111, similarity=similarity, heads=heads, validate=False
    )

    assert kept.shape == (1, round(0.111 * total))
    assert kept.dtype == torch.int64
    assert kept.device.type == "meta"
    assert recorded.count("compare") >= len(PCMMR().chunk_sizes(kept.shape[1])) - 1


@pytest.mark.usefixtures("recorded")
def test_the_proof_that_no_number_is_read_can_fail() -> None:
    """The reference, and the checks of the data, do read numbers."""
    arrays = tokens(600)

    with pytest.raises(TypeError, match="meta and has no data"):
        select_tokens(*arrays, 0.111)
    with pytest.raises(TypeError, match="meta and has no data"):  # float64 has no kernel
        select_tokens(*(x.double() for x in arrays), 0.111, validate=False)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        first_identical(arrays[0])


def test_a_step_is_three_launches(recorded: list[str]) -> None:
    """Rank, gather, compare; the last chunk is not compared. The keys' mean takes two, that of few queries one."""
    select_tokens(*tokens(7290), 809, validate=False)

    assert len(PCMMR().chunk_sizes(809)) == 9
    assert recorded == [
        *("average", "average", "average", "log_scores", "scale_to_unit", "take_best", "prepare_tokens"),
        *(["prepare_columns", "compare", "take_best"] * 8),
    ]


@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
@pytest.mark.parametrize("total", [2000, 20_000])
def test_thirty_two_samples_take_the_launches_of_one(recorded: list[str], total: int, heads: str) -> None:
    """The batch is an axis of every kernel, however many tokens are ranked."""
    counted = []

    for samples in (1, 32):
        batch = [x.expand(samples, *x.shape) for x in tokens(total)]
        assert select_tokens(*batch, 0.111, heads=heads, validate=False).shape == (samples, round(0.111 * total))
        counted.append(list(recorded))
        recorded.clear()

    assert counted[0] == counted[1]


@pytest.mark.usefixtures("recorded")
def test_a_million_tokens_take_less_than_a_gibibyte_beside_the_inputs() -> None:
    """Even if nothing that was allocated were ever freed."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    sizes: dict[int, int] = {}

    class Allocations(TorchDispatchMode):
        """Add up the storages that operations return."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    storage = leaf.untyped_storage()
                    held.append(storage)
                    sizes[storage._cdata] = storage.nbytes()
            return result

    arrays = tokens(1_000_000)
    held: list[Any] = []
    with Allocations():
        kept = select_tokens(*arrays, 0.111, validate=False)

    inputs = {x.untyped_storage()._cdata for x in arrays}
    assert kept.shape == (111_000,)
    assert sum(size for storage, size in sizes.items() if storage not in inputs) < 2**30


def test_the_lazy_loop_is_never_asked_however_large_the_work() -> None:
    """It waits for each of its rounds: a million tokens of which a third are kept go to the kernels too."""
    pytest.importorskip("triton", reason="Triton is not installed")
    supports = iwp_torch.kernels["progressive_chunked_mmr"].supports
    keys, values, _ = tokens(1_000_000)
    duplication = Duplication(keys, values, metric="dual", kernel="exponential")
    scores = torch.zeros(1_000_000, device="meta")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_triton_serves", lambda _: True)
        assert supports(scores, duplication, [2, 351_000, 2_000], penalty=5.0, floor=0.01, exponent=2)


SHARED_MEMORY = 99 * 1024
"""Bytes that a block may have on cards of compute capability 8.6 and 8.9, the least of those served."""


class Target:
    """Stands in for the driver, and says for which card to compile."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        """Return the card."""
        return self.target

    def get_current_device(self) -> int:
        """Return a number of the card's own: what is compiled is kept by it."""
        return int(self.target.arch)

    def get_current_stream(self, _: int | None = None) -> int:
        """Return the stream, which is not used."""
        return 0


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Give a function that makes launches compile for a capability instead, and returns what will be compiled."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from triton.runtime.driver import driver

    from iwp_torch import triton_magnitude, triton_pc_mmr, triton_places

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels: dict[str, list[Any]] = {}
    before = dict(vars(driver))

    def warm(kernel: Any, grid: Any, **arguments: Any) -> None:
        result = kernel.run(grid=grid, warmup=True, **arguments, enable_fp_fusion=True)
        kernels.setdefault(kernel.__name__, []).append(result)

    for module in (triton_magnitude, triton_pc_mmr, triton_places):
        monkeypatch.setattr(module, "launch", warm)

    def compile_for(capability: int) -> Any:
        driver.set_active(Target(capability))
        return kernels

    yield compile_for
    vars(driver).update(before)


def run_everything(dtype: Any, total: int, sizes: list[int], *, masked: bool = False) -> None:
    """Go through all launches of a selection."""
    from iwp_core.similarity import factors_of
    from iwp_torch import triton_magnitude, triton_pc_mmr, triton_places

    keys, values, queries = (x[None].expand(2, *x.shape) for x in tokens(total, dtype, device="cpu"))
    factors = factors_of(keys, values, None, metric="dual", kernel="exponential")
    real = torch.arange(total, dtype=torch.int32).expand(2, total) if masked else None
    places = triton_places.Places(count=total, counts=torch.full((2,), total, dtype=torch.int32), real=real)
    scores = triton_magnitude.log_magnitude(
        keys, values, queries[:, :, 0].float(), places, metric="dual", kernel="exponential", heads="softmax_mean"
    )
    wanted = torch.full_like(places.counts, sum(sizes))
    triton_pc_mmr.progressive_chunked_mmr(scores, factors, places, wanted, sizes, penalty=5.0, floor=0.01, exponent=2)


KERNELS = {
    *("average", "log_scores", "total_scores", "scale_to_unit", "prepare_tokens", "prepare_columns", "compare"),
    *("take_best", "penalise"),
}


# Code for 86 is that for 80 but for the assembler.
FOR_CARDS = [(80, torch.float16), *((card, dtype) for card in (86, 90) for dtype in (torch.bfloat16, torch.float32))]


@pytest.mark.parametrize(("capability", "dtype"), FOR_CARDS, ids=str)
def test_every_kernel_compiles_to_machine_code_that_fits_the_card(
    compiled: Any, dtype: Any, capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the interpreter cannot show: tensor-core products that exist, and no more shared memory than there is."""
    from iwp_torch import triton_pc_mmr

    kernels = compiled(capability)

    run_everything(dtype, 2000, [2, 60, 200])
    monkeypatch.setattr(triton_pc_mmr, "AT_ONCE", 0)
    run_everything(dtype, 2000, [2, 60, 200], masked=True)

    assert set(kernels) == KERNELS
    variants = [kernel for name in KERNELS for kernel in kernels[name]]
    assert all(kernel.asm["cubin"] for kernel in variants)
    assert max(kernel.metadata.shared for kernel in variants) <= SHARED_MEMORY
    product = "wgmma.mma_async" if capability == 90 else "mma.sync"
    assert all(product in kernel.asm["ptx"] for kernel in kernels["compare"])
    if dtype == torch.float32:
        assert all("tf32" in kernel.asm["ptx"] for kernel in kernels["compare"])


SPILL = 64
"""Bytes of a thread's registers that may lie in memory: a few addresses, no tile."""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_no_kernel_spills_its_tiles(compiled: Any, dtype: Any, tmp_path: Path) -> None:
    """Tiles of twice the size lie in memory by the kilobyte; a change of shapes that does so is seen here."""
    from triton import knobs

    kernels = compiled(90)
    run_everything(dtype, 7290, [2, 32, 64, 128])
    run_everything(dtype, 7290, [2, 32, 64, 128], masked=True)

    stacks = {}
    for name, variants in kernels.items():
        for number, kernel in enumerate(variants):
            path = tmp_path / f"{name}{number}.cubin"
            path.write_bytes(kernel.asm["cubin"])
            command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
            usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            stacks[name, number] = int(re.findall(r"STACK:(\d+)", usage)[-1])
    assert {name for name, _ in stacks} == KERNELS - {"penalise"}
    assert max(stacks.values()) <= SPILL, stacks

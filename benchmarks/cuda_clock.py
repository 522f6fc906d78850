"""Seconds, bytes and host synchronisations of calls on one device, and the time that a benchmark may take."""

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _harness import peak_extra_bytes

from iwp_transformers.stopwatch import Stopwatch

LEAST_REPEATS, MOST_REPEATS = 3, 30


def spread(times: list[float]) -> dict[str, Any]:
    """Return the median and the quartiles of some seconds, and how many there are."""
    first, median, third = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {"median": median, "first quartile": first, "third quartile": third, "repeats": len(times)}


def reason(error: Exception) -> str:
    """Return the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]


class Allowance:
    """Seconds that a part of the benchmark may still take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, negative when overdrawn."""
        return self._end - time.monotonic()

    def part(self, share: float) -> "Allowance":
        """Return an allowance of a share of what is left; what it leaves over is not lost to the whole."""
        return Allowance(share * self.left)


@dataclass(frozen=True)
class Clock:
    """Measures calls on a device: by CUDA's events and allocator, or for a rehearsal by the host's."""

    device: torch.device

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def seconds(self, call: Callable[[], object]) -> float:
        """Time one call, from its start on an idle device until the device has done its work."""
        with Stopwatch(self.device) as watch:
            call()
        return watch.seconds

    def repeated(self, call: Callable[[], object], enough: float) -> dict[str, Any]:
        """Time a call that is warm already until `enough` seconds are spent; slow calls run fewer than three times."""
        times: list[float] = []
        while len(times) < MOST_REPEATS:
            times.append(self.seconds(call))
            if sum(times) > enough * (1 if len(times) >= LEAST_REPEATS else 5):
                break
        return spread(times)

    def extra_bytes(self, call: Callable[[], object]) -> int:
        """Return how far a call lifts the memory in use above where it was, its result included."""
        return peak_extra_bytes(call, self.device)

    def allocated_bytes(self) -> int:
        """Return the device memory that tensors hold now; 0 on a CPU, where nobody counts."""
        return torch.cuda.memory_allocated() if self.on_cuda else 0

    def free_bytes(self) -> int:
        """Return the memory that tensors could still take."""
        if not self.on_cuda:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()

    def settle(self, *, release: bool = False) -> None:
        """Wait for the device, and with `release` give back what allocators cache."""
        if self.on_cuda:
            torch.cuda.synchronize()
            if release:
                torch.cuda.empty_cache()
                if "cupy" in sys.modules:
                    sys.modules["cupy"].get_default_memory_pool().free_all_blocks()

    def host_synchronisations(self, call: Callable[[], object]) -> int | None:
        """Count the operations of a call that make the host wait, as far as torch notices; None on a CPU."""
        if not self.on_cuda:
            return None
        self.settle()
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                call()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        return sum("called a synchronizing" in str(warning.message) for warning in caught)

    def captured(self, call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Record the work of a warm call in a CUDA graph, and return what replays it."""
        current = torch.cuda.current_stream()
        side = torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            call()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # A capture that fails leaves its stream behind as the current one, hence the context around it.
        with torch.cuda.stream(current), torch.cuda.graph(graph):
            answer = call()

        def replay() -> torch.Tensor:
            graph.replay()
            return answer

        return replay


def gpu() -> dict[str, Any]:
    """Describe the GPU: name, memory, multiprocessors, compute capability, driver."""
    if not torch.cuda.is_available():
        return {"name": None}
    about = torch.cuda.get_device_properties(0)
    return {
        "name": about.name,
        "memory": about.total_memory,
        "multiprocessors": about.multi_processor_count,
        "compute capability": f"{about.major}.{about.minor}",
        "driver": _driver(),
        "CUDA of torch": torch.version.cuda,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({reason(error)})"

"""Time a stretch of work without making the device wait."""

from time import perf_counter
from types import TracebackType

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Context manager that times its block: CUDA events on a CUDA device, the host's clock elsewhere.

    Parameters
    ----------
    device : torch.device
        Where the work of the block runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            self._start, self._stop = (
                torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
                for _ in range(2)
            )
            self._stream = torch.cuda.current_stream(device)
        self._seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        """Start."""
        if self._on_cuda:
            self._start.record(self._stream)
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._seconds = perf_counter() - self._began
        if self._on_cuda:
            self._stop.record(self._stream)

    @property
    def seconds(self) -> float:
        """Seconds that the block took; on CUDA this waits until the device has done it."""
        if self._on_cuda:
            self._stop.synchronize()
            return float(self._start.elapsed_time(self._stop)) / 1000
        return self._seconds

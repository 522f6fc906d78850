"""Time stretches of work without making the device wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Adds up stretches of work: by CUDA events on a CUDA device, by the host's clock elsewhere."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Time a block whose work runs on `device`."""
        if device.type != "cuda":
            began = perf_counter()
            yield
            self._seconds += perf_counter() - began
            return
        stream = torch.cuda.current_stream(device)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # in torch
        start.record(stream)
        yield
        stop.record(stream)
        self._events.append((start, stop))

    @property
    def seconds(self) -> float:
        """Seconds that all stretches took; on CUDA this waits until the device has done them."""
        for _, stop in self._events:
            stop.synchronize()
        return self._seconds + float(sum(start.elapsed_time(stop) for start, stop in self._events)) / 1000

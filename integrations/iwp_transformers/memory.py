"""Most memory held while something runs: what PyTorch allocated on a GPU, what the process held on a CPU."""

import ctypes
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

__all__ = ["PeakMemory"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context manager that measures how far its block lifts the memory above where it was.

    Parameters
    ----------
    device : torch.device
        Whose memory: of a CUDA device what PyTorch allocated, otherwise what this process held (Linux only).

    Attributes
    ----------
    bytes : int or None
        Most memory held within the block, less what was held before; None where it cannot be measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        """Begin."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        elif _resettable():
            # Else the block would live on what earlier work has freed, and seem to need nothing.
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
            CLEAR.write_text("5", encoding="ascii")  # resets the high-water mark
            self._before = _status_bytes("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and take the difference."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before
        elif _resettable():
            self.bytes = max(0, _status_bytes("VmHWM") - self._before)


def _resettable() -> bool:
    return sys.platform == "linux" and CLEAR.exists()


def _status_bytes(field: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024

"""The Python frames of a thread: who is calling a model, and with what."""

from collections.abc import Iterator
from types import FrameType

__all__ = ["outward"]


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame, the frame that called it, and so on up to the outermost; nothing for None."""
    while frame is not None:
        yield frame
        frame = frame.f_back

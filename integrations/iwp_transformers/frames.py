"""The Python frames of a thread: who is calling a model, and with what."""

import inspect
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["arguments_in", "outward"]


def arguments_in(frame: FrameType) -> dict[str, Any]:
    """Return the variables of a function that is running, and by their names what it took as ``**kwargs``.

    Whoever asks a frame for its variables keeps them alive in it, so this is for functions that run a model.
    """
    code, known = frame.f_code, frame.f_locals
    named = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    rest = known.get(code.co_varnames[named]) if code.co_flags & inspect.CO_VARKEYWORDS else None
    return {**(rest or {}), **known}


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame, the frame that called it, and so on up to the outermost; nothing for None."""
    while frame is not None:
        yield frame
        frame = frame.f_back

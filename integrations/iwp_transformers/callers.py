"""Which loop of `generate` is calling a model, and what that loop knows of the tokens that it hands over."""

import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from torch import nn
from transformers import GenerationConfig, GenerationMixin

from iwp_transformers.frames import outward

__all__ = [
    "calls_of",
    "drafted_tokens",
    "followed_by_answer",
    "generation_inputs",
    "running_elsewhere",
    "running_generation",
]

_GENERATE, _ASSISTED = (
    inspect.unwrap(getattr(GenerationMixin, name)).__code__ for name in ("generate", "_assisted_decoding")
)
# Where the loops of `generate` stand; a logits processor that calls the model stands elsewhere.
_LOOPS = ("transformers.generation.utils", "transformers.models.")
_ANSWERED: ContextVar[int] = ContextVar("tokens of an answer behind the prompt", default=0)


@contextmanager
def followed_by_answer(count: int) -> Iterator[None]:
    """Let forwards of this thread take their last tokens for an answer that is given, which no question is read from.

    Parameters
    ----------
    count : int
        Tokens of the answer behind the prompt of each sample.
    """
    token = _ANSWERED.set(count)
    try:
        yield
    finally:
        _ANSWERED.reset(token)


def running_generation(model: nn.Module) -> GenerationConfig | None:
    """Return the configuration of the `generate` that is calling a model.

    Every call of `generate` makes a configuration of its own, so that this object tells calls apart.

    Parameters
    ----------
    model : torch.nn.Module
        The model with its head.

    Returns
    -------
    transformers.GenerationConfig or None
        None where the model was called by anybody else, within a `generate` or not.
    """
    frame = _frame_of_generate(model)
    config = None if frame is None else frame.f_locals.get("generation_config")
    return config if isinstance(config, GenerationConfig) else None


def generation_inputs(model: nn.Module) -> dict[str, Any]:
    """Return what the `generate` that is calling a model was given, by name; nothing where nobody generates.

    Features are encoded before the prefill, which then lacks what the processor said of the pictures.

    Parameters
    ----------
    model : torch.nn.Module
        The model with its head.
    """
    frame = _frame_of_generate(model)
    if frame is None:
        return {}
    given = {"input_ids": frame.f_locals.get("inputs"), **frame.f_locals.get("kwargs", {})}
    return {name: value for name, value in given.items() if value is not None}


def drafted_tokens(model: nn.Module) -> int:
    """Return how many tokens at the end of what a model is called with are drafts, which assisted decoding checks.

    Its first forward holds the prompt and the drafts behind it. So does a forward within `followed_by_answer`.

    Parameters
    ----------
    model : torch.nn.Module
        The model with its head.

    Raises
    ------
    RuntimeError
        If assisted decoding calls the model, but does not tell how many they are.
    """
    frame = _calling_loop(model)
    if frame is None:
        return _ANSWERED.get()
    if frame.f_code is not _ASSISTED:
        return 0
    count = frame.f_locals.get("candidate_length")
    if not isinstance(count, int):
        msg = (
            "assisted decoding calls the model without telling how many drafts stand behind the prompt: this version of"
            " Transformers counts them in a new way"
        )
        raise RuntimeError(msg)
    return count


def calls_of(module: nn.Module, frame: FrameType | None) -> int:
    """Return how many calls of a module a frame is within."""
    return sum(_calls(each, module) for each in outward(frame))


def running_elsewhere(module: nn.Module) -> bool:
    """Tell whether another thread is in the middle of a call of a module."""
    frames = sys._current_frames()
    return any(calls_of(module, frame) for thread, frame in frames.items() if thread != threading.get_ident())


def _calls(frame: FrameType, module: nn.Module) -> bool:
    return frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is module


def _frame_of_generate(model: nn.Module) -> FrameType | None:
    return next((frame for frame in outward(_calling_loop(model)) if frame.f_code is _GENERATE), None)


def _frame_around(frame: FrameType | None, model: nn.Module) -> FrameType | None:
    """Return the frame outside of `frame` that calls a model."""
    call = next((each for each in outward(frame) if _calls(each, model)), None)
    return next((each for each in outward(call) if each.f_globals.get("__name__") != nn.Module.__module__), None)


def _calling_loop(model: nn.Module) -> FrameType | None:
    """Return the frame of the loop that is calling a model; None where somebody else does."""
    frame: FrameType | None = sys._getframe()
    whole: Any = model
    while frame is not None and isinstance(whole, nn.Module):
        frame = _frame_around(frame, whole)
        # A model without its head may be called by that head, of whose caller is asked then.
        whole = frame.f_locals.get("self") if frame is not None and frame.f_code.co_name == "forward" else None
    if frame is None or not str(frame.f_globals.get("__name__")).startswith(_LOOPS):
        return None
    return frame

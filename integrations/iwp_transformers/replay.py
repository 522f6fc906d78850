"""Decoding without a cache: `generate` runs the whole text again for each token, and must not choose anew each time."""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any
from weakref import ref

from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin

__all__ = ["Replay", "generation_inputs", "running_generation"]

_GENERATE = inspect.unwrap(GenerationMixin.generate).__code__
# Where the loops of `generate` stand; a logits processor that calls the model stands elsewhere.
_LOOPS = ("transformers.generation.utils", "transformers.models.")


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


def _frame_of_generate(model: nn.Module) -> FrameType | None:
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is model):
        frame = frame.f_back
    while frame is not None and frame.f_globals.get("__name__") == nn.Module.__module__:
        frame = frame.f_back
    if frame is None or not str(frame.f_globals.get("__name__")).startswith(_LOOPS):
        return None
    while frame is not None and frame.f_code is not _GENERATE:
        frame = frame.f_back
    return frame


@dataclass(frozen=True, eq=False)
class Replay:
    """What was kept of a prompt that one `generate` runs again and again.

    Without it, decoded tokens would count as part of the question, and ids decoded with and without a cache differ.

    Attributes
    ----------
    generation : weak reference to GenerationConfig
        The call of `generate`.
    length : int
        Tokens of the prompt, padding counted.
    samples : int
        Samples of the batch.
    kept : sequence of tuple
        For each stage and sample, what was kept.
    """

    generation: "ref[GenerationConfig]"
    length: int
    samples: int
    kept: Sequence[tuple[Any, ...]]

    @classmethod
    def of(cls, generation: GenerationConfig, tokens: Tensor, kept: Sequence[tuple[Any, ...]]) -> "Replay":
        """Remember what was kept of a prompt, `tokens` of shape (B, T)."""
        return cls(ref(generation), tokens.shape[1], tokens.shape[0], kept)

    def kept_for(self, generation: GenerationConfig, tokens: Tensor) -> Sequence[tuple[Any, ...]]:
        """Return what was kept if `tokens` continue the prompt of the same call; nothing otherwise."""
        same = self.generation() is generation and tokens.shape[0] == self.samples and tokens.shape[1] > self.length
        return self.kept if same else ()

"""The labels of a forward: which rows of the model's output a loss is computed of."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from iwp_transformers.frames import outward

__all__ = ["labelled_rows"]

# The label of a token that no loss is computed for, unless the caller says otherwise.
IGNORED = -100
# Functions that run a model, also in parts of the names that torch.compile gives them.
_CALLS = ("_call_impl", "forward")


def labelled_rows(tokens: Tensor) -> Tensor | None:
    """Return which rows of the running forward a loss is computed of.

    The labels are read off the calls of models that are running, since nothing else sees all of them: hooks miss a
    `forward` that is called directly, as PEFT does, and a head that is put on the model from outside.

    Parameters
    ----------
    tokens : torch.Tensor
        Shape (B, T): the token ids of the forward.

    Returns
    -------
    torch.Tensor or None
        Shape (B, T), bool; None where the forward came without labels of that shape.
    """
    for given in _arguments_of_models():
        labels, shifted = given.get("labels"), given.get("shift_labels")
        if not isinstance(labels, Tensor) or labels.shape != tokens.shape:
            continue
        ignored = given.get("ignore_index", IGNORED)
        # A label is read from the row in front of it, unless the caller has moved them there.
        rows: Tensor = F.pad(labels[:, 1:], (0, 1), value=ignored) if shifted is None else shifted
        return rows.ne(ignored)
    return None


def _arguments_of_models() -> Iterator[Mapping[str, Any]]:
    """Return what the models were called with that this thread is running, the innermost first."""
    for frame in outward(sys._getframe()):
        code = frame.f_code
        # Whoever asks a frame for its variables keeps them alive in it, so that those of others are left alone.
        known = frame.f_locals if any(name in code.co_name for name in _CALLS) else {}
        if isinstance(known.get("self"), PreTrainedModel):
            named = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
            rest = known.get(code.co_varnames[named]) if code.co_flags & inspect.CO_VARKEYWORDS else None
            yield {**(rest or {}), **known}

"""The labels of a forward: which rows of the model's output a loss is computed of."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from iwp_transformers.frames import arguments_in, outward

__all__ = ["labelled_rows"]

# The label of a token that no loss is computed for, unless the caller says otherwise.
IGNORED = -100
# Functions that run a model, also in parts of the names that torch.compile gives them.
_CALLS = ("_call_impl", "forward")
# That of a Trainer, which keeps the labels to itself if they are smoothed, or its user has a loss of their own.
_LOSS = "compute_loss"


def labelled_rows(tokens: Tensor) -> Tensor | None:
    """Return which rows of the running forward a loss is computed of.

    The labels are read off the calls of models that are running, since nothing else sees all of them: hooks miss a
    `forward` that is called directly, as PEFT does, and a head that is put on the model from outside. A `Trainer` may
    not hand them to the model at all.

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
        name = frame.f_code.co_name
        if not any(part in name for part in (*_CALLS, _LOSS)):
            continue
        known = arguments_in(frame)
        if name == _LOSS or isinstance(known.get("self"), PreTrainedModel):
            yield known

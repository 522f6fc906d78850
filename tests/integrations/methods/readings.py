"""What a model of full length computes by itself, with nothing of the library: eager attention, states and keys."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iwp_transformers.methods.sparsevlm import SparseVLM
from tests.integrations.oracle import forbidden, positioned

Case = dict[str, Any]
STAGED = {"layer": (1, 3), "budget": (0.5, 0.25)}
SINGLE = {"layer": 2, "budget": 0.4}
AT_ENTRANCE = {"layer": 0, "budget": 0.4}
CASES: dict[str, Case] = {
    **dict.fromkeys(("iwp", "random", "uniform", "pooling", "fastv", "fastv-reverse", "fastv-window"), SINGLE),
    **dict.fromkeys(("fastv-visual", "fastv-balanced", "dart"), SINGLE),
    **dict.fromkeys(("divprune", "divprune-star", "trimtokenator"), AT_ENTRANCE),
    **dict.fromkeys(("fastervlm", "scope", "vispruner", "holov", "cdpruner"), AT_ENTRANCE),
    **dict.fromkeys(("pyramiddrop", "mustdrop"), STAGED),
    "sparsevlm": {**STAGED, "method": SparseVLM(recycling=False)},
    "v2drop": {"layer": (1, 2, 3), "budget": (0.5, 0.25, 0)},
    "vtw": {"layer": 2},
}
"""What each method is called with in the tests: stages where its paper has them, and options that only drop."""


def asked_of(name: str) -> Case:
    """Return the arguments of a session with a method."""
    return {"method": name, **CASES[name]}


@dataclass(frozen=True)
class Reading:
    """One forward of the full-length model.

    Attributes
    ----------
    hidden : tuple of Tensor
        Shape (B, T, E): the inputs of each layer.
    attentions : tuple of Tensor
        Shape (B, Hq, T, T): the weights of each layer.
    keys : list of Tensor
        Shape (B, H, T, D): the rotated keys of each layer.
    """

    hidden: Sequence[Tensor]
    attentions: Sequence[Tensor]
    keys: Sequence[Tensor]


@contextmanager
def stages_forbidden(model: nn.Module, record: Any, real: Tensor, stages: int | None = None) -> Iterator[None]:
    """Let no layer look at what was dropped up to it, for the first `stages` of a record, or all."""
    with ExitStack() as stack:
        for stage in record.stages[:stages]:
            # The hooks run in this order, so that the mask of the last stage counts.
            stack.enter_context(forbidden(model, stage.layer, dropped_by(record, stage, real.shape), real))
        yield


def dropped_by(record: Any, stage: Any, shape: Sequence[int]) -> Tensor:
    """Return which tokens are gone from a stage on, shape (B, T)."""
    dropped = torch.zeros(tuple(shape), dtype=torch.bool)
    for sample, (visual, kept) in enumerate(zip(record.visual, stage.kept, strict=True)):
        dropped[sample, visual] = True
        dropped[sample, kept] = False
    return dropped


def reading_before(model: nn.Module, inputs: dict[str, Any], record: Any, stage: int) -> Reading:
    """Return what the full-length model computes when it drops at the stages before one."""
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), stages_forbidden(model, record, real, stage):
        output = model(**positioned(model, inputs), use_cache=True, output_attentions=True, output_hidden_states=True)
    keys = [layer.keys for layer in output.past_key_values.layers]
    return Reading(hidden=output.hidden_states, attentions=output.attentions, keys=keys)

"""What the processor passes to the model for one image: how many tokens to keep, and what to choose them by."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from iwp_vllm.question import Around
from iwp_vllm.rules import Rule

__all__ = ["Directive", "Plan", "taken", "whole_length"]

COUNT, WHOLE, SOURCE, BEFORE, AFTER = "iwp_count", "iwp_whole", "iwp_source", "iwp_before", "iwp_after"


@dataclass(frozen=True, kw_only=True)
class Directive:
    """How one image or video is pruned.

    Attributes
    ----------
    budget : int or float
        Number of tokens to keep, or their share; in the model, the count M.
    source : str
        vLLM's hash of the image or video and of the arguments of its own processor.
    around : Around
        Text that the choice depends on; empty for a rule that reads none.
    """

    budget: float
    source: str
    around: Around = field(default_factory=Around)

    def identity(self, rule: Rule) -> str:
        """Return the hash by which vLLM caches what is kept: it covers everything that the choice depends on.

        Parameters
        ----------
        rule : Rule
            That of the engine. Caches may be shared between engines.
        """
        return sha256(repr((self.source, repr(self.budget), rule, self.around)).encode()).hexdigest()

    def tensors(self, count: int, whole: int) -> dict[str, Tensor]:
        """Return what travels with the pixels, by name.

        Parameters
        ----------
        count : int
            M.
        whole : int
            N.
        """
        return {
            COUNT: torch.tensor(count),
            WHOLE: torch.tensor(whole),
            SOURCE: torch.tensor(list(self.source.encode()), dtype=torch.uint8),
            BEFORE: torch.tensor(self.around.before, dtype=torch.int64),
            AFTER: torch.tensor(self.around.after, dtype=torch.int64),
        }


def taken(arguments: MutableMapping[str, Any]) -> Directive | None:
    """Take the directive out of what the model is called with; None if these images are not pruned."""
    if COUNT not in arguments:
        return None
    count, _, source, before, after = (arguments.pop(name) for name in (COUNT, WHOLE, SOURCE, BEFORE, AFTER))
    around = Around(before=tuple(before.tolist()), after=tuple(after.tolist()))
    return Directive(budget=int(count), source=bytes(source.tolist()).decode(), around=around)


def whole_length(item: Mapping[str, Any] | None) -> int | None:
    """Return N, the tokens of an image or video before it was pruned; None if it is not.

    Parameters
    ----------
    item : mapping of str to vllm.multimodal.inputs.MultiModalFieldElem, or None
        What travels with its pixels, also where the pixels are not needed any more.
    """
    return int(item[WHOLE].data) if item and WHOLE in item else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The directives of a request, for each modality one for each item that it brings.

    Attributes
    ----------
    rule : Rule
        By which all are chosen.
    directives : mapping of str to sequence of Directive
    """

    rule: Rule
    directives: Mapping[str, Sequence[Directive]]

    def missing(self, cached: Mapping[str, Sequence[bool]]) -> "Plan":
        """Return the plan of those items that a cache does not hold."""
        left = {
            modality: [each for each, there in zip(all_of_it, cached[modality], strict=True) if not there]
            for modality, all_of_it in self.directives.items()
        }
        return replace(self, directives=left)

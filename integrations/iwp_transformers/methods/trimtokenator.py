"""TrimTokenator: keep visual tokens that are aligned with the text and have a large sum of distances."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from iwp_core.methods import trimtokenator
from iwp_transformers.methods._aligned import Aligned

__all__ = ["TrimTokenator"]


@dataclass(frozen=True, kw_only=True)
class TrimTokenator(Aligned):
    """`iwp_core.methods.trimtokenator` on input embeddings. Text means the text after the first visual token.

    Attributes
    ----------
    alignment : {"l2", "mutual_information", "cosine"}
        Measure of alignment in the first stage.
    share : float
        Share of the visual tokens that pass the first stage, 0 to 1.
    """

    name: ClassVar[str] = "trimtokenator"
    rule: ClassVar[Callable[..., Any]] = staticmethod(trimtokenator)

"""DivPrune*: DivPrune on the visual tokens that are best aligned with the text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from iwp_core.methods import divprune_star
from iwp_transformers.methods._aligned import Aligned

__all__ = ["DivPruneStar"]


@dataclass(frozen=True, kw_only=True)
class DivPruneStar(Aligned):
    """`iwp_core.methods.divprune_star` on input embeddings. Text means the text after the first visual token.

    Attributes
    ----------
    alignment : {"l2", "mutual_information", "cosine"}
        Measure of alignment in the first stage.
    share : float
        Share of the visual tokens that pass the first stage, 0 to 1.
    """

    name: ClassVar[str] = "divprune-star"
    rule: ClassVar[Callable[..., Any]] = staticmethod(divprune_star)

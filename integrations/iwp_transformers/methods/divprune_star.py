"""DivPrune*: DivPrune on the visual tokens that align with the text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from iwp_core.methods import divprune_star
from iwp_transformers.methods._aligned import Aligned

__all__ = ["DivPruneStar"]


@dataclass(frozen=True, kw_only=True)
class DivPruneStar(Aligned):
    """`iwp_core.methods.divprune_star` on input embeddings; text is what follows the first visual token.

    Attributes
    ----------
    alignment, share : str, float
        Of its first stage.
    """

    name: ClassVar[str] = "divprune-star"
    rule: ClassVar[Callable[..., Any]] = staticmethod(divprune_star)

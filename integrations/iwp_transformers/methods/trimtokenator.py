"""TrimTokenator: tokens that align with the text, and of those a set of large summed distance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from iwp_core.methods import trimtokenator
from iwp_transformers.methods._aligned import Aligned

__all__ = ["TrimTokenator"]


@dataclass(frozen=True, kw_only=True)
class TrimTokenator(Aligned):
    """`iwp_core.methods.trimtokenator` on input embeddings; text is what follows the first visual token.

    Attributes
    ----------
    alignment, share : str, float
        Of its first stage.
    """

    name: ClassVar[str] = "trimtokenator"
    rule: ClassVar[Callable[..., Any]] = staticmethod(trimtokenator)

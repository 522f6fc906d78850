"""DART: keep pivots, and for each pivot the visual tokens least like it."""

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import dart
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["DART"]


@dataclass(frozen=True, kw_only=True)
class DART(Method):
    """`iwp_core.methods.dart` on keys of the layer before and on states after the final norm.

    Text means the text after the first visual token. At most the budget is kept: beside the image pivots, each pivot
    adds the same number of tokens. If the budget is less than `image_pivots`, only as many pivots are kept. If the text
    has fewer tokens than `text_pivots`, all are pivots, where the official code raises.

    Attributes
    ----------
    image_pivots : int
        Number of pivots among the visual tokens, at least 1. These are kept.
    text_pivots : int
        Number of pivots among the text tokens, at least 0.
    """

    name: ClassVar[str] = "dart"
    paper: ClassVar[Paper | None] = Paper(title="DART", year=2025, arxiv="2502.11494")
    reads: ClassVar[tuple[Reads, ...]] = ("keys of the layer before", "states")
    layer: ClassVar[int] = 5
    own_count: ClassVar[bool] = True
    image_pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        """Check the numbers of pivots.

        Raises
        ------
        TypeError
            If one is not an int.
        ValueError
            If `image_pivots` is below 1, or `text_pivots` below 0.
        """
        for name, count, least in (("image_pivots", self.image_pivots, 1), ("text_pivots", self.text_pivots, 0)):
            if isinstance(count, bool) or not isinstance(count, Integral):
                msg = f"`{name}` is {count!r}, expected an int"
                raise TypeError(msg)
            if count < least:
                msg = f"`{name}` is {count}, expected at least {least}"
                raise ValueError(msg)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual, text = view.visual, view.question
        keys, text_keys = (view.before(part).rotated_keys.transpose(0, 1).flatten(1) for part in (visual, text))
        kept: Tensor = dart(
            view.normed(visual),
            keys,
            view.normed(text),
            text_keys,
            budget=view.budget,
            image_pivots=min(self.image_pivots, view.budget),
            text_pivots=min(self.text_pivots, len(text)),
            offset=int(view.unpadded_positions(visual)[0]),
        )
        return kept

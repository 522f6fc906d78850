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
    """`iwp_core.methods.dart`; text is what follows the first visual token.

    Keeps at most the budget: the pivots share it out in equal whole numbers. A budget below the image pivots keeps so
    many pivots alone; of a text of fewer tokens than text pivots all are pivots, where the official code raises.

    Attributes
    ----------
    image_pivots, text_pivots : int
        Pivots among the visual tokens, which are kept, and among the text.
    """

    name: ClassVar[str] = "dart"
    paper: ClassVar[Paper | None] = Paper(title="DART", year=2025, arxiv="2502.11494")
    reads: ClassVar[tuple[Reads, ...]] = ("keys of the layer before", "states")
    layer: ClassVar[int] = 5
    own_count: ClassVar[bool] = True
    image_pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        """Check the pivots.

        Raises
        ------
        TypeError
            If a number of pivots is no int.
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

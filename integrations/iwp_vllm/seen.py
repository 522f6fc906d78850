"""What a rule sees: one prompt with one image, at the entrance of the layer by which tokens are chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

__all__ = ["Heads", "Seen"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """Queries, keys and values of one layer for T tokens.

    Attributes
    ----------
    queries, rotated_queries : torch.Tensor
        Shape (Hq, T, D), without and with rotary embedding.
    keys, rotated_keys : torch.Tensor
        Shape (H, T, D).
    values : torch.Tensor
        Shape (H, T, Dv).
    """

    queries: Tensor
    rotated_queries: Tensor
    keys: Tensor
    rotated_keys: Tensor
    values: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """One prompt with one image at the entrance of a layer, each part computed only when a rule asks.

    Attributes
    ----------
    hidden : torch.Tensor
        Shape (T, E): what enters the layer, of text and image.
    visual : slice
        Rows of the image's N tokens.
    heads : callable
        Returns the layer's `Heads`.
    attention_before : callable
        Returns the attention of the last token in the layer before, shape (Hq, T).
    source : bytes
        What tells the image from others.
    """

    hidden: Tensor
    visual: slice
    heads: Callable[[], Heads]
    attention_before: Callable[[], Tensor]
    source: bytes = b""

    @property
    def question(self) -> slice:
        """Rows of the text after the image; of the text before it where none follows; of the image without text."""
        length = self.hidden.shape[0]
        if self.visual.stop < length:
            return slice(self.visual.stop, length)
        return slice(0, self.visual.start) if self.visual.start else self.visual

    @cached_property
    def _heads(self) -> Heads:
        return self.heads()

    @property
    def queries(self) -> Tensor:
        """Shape (Hq, T, D), without rotary embedding."""
        return self._heads.queries

    @property
    def rotated_queries(self) -> Tensor:
        """Shape (Hq, T, D)."""
        return self._heads.rotated_queries

    @property
    def keys(self) -> Tensor:
        """Shape (H, T, D), without rotary embedding."""
        return self._heads.keys

    @property
    def rotated_keys(self) -> Tensor:
        """Shape (H, T, D)."""
        return self._heads.rotated_keys

    @property
    def values(self) -> Tensor:
        """Shape (H, T, Dv)."""
        return self._heads.values

    @property
    def last_attention(self) -> Tensor:
        """Shape (Hq, T): soft-max attention of the last token in the layer before."""
        return self.attention_before()

"""The fixed map from the columns of shortened cache layers to those of the full ones, and the masks of steps by it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from iwp_transformers.layer_kinds import WINDOWED
from iwp_transformers.masks import hide_columns, open_mask, take_columns, weighed_mask
from iwp_transformers.rows import KeptRows

__all__ = ["PrunedRows"]


class PrunedRows:
    """The fixed map from the columns of shortened cache layers to those of the full ones.

    Column c of a shortened layer stands at full position `index[b, c]` where c < M, and c + T - M behind that.

    Parameters
    ----------
    rows : KeptRows
        The rows that stayed of the prompt.
    visible : torch.Tensor
        Shape (B, T), bool: which tokens of the prompt are neither padding nor dropped.
    capacity : tuple of int, optional
        Columns of a full and of a shortened layer, where the cache is static.
    log_sizes : torch.Tensor, optional
        Shape (B, T): logarithm of how many tokens each stands for in attention; None if all stand for themselves.

    Attributes
    ----------
    full, kept : int
        Tokens of the prompt before and after, T and M.
    """

    def __init__(
        self, rows: KeptRows, visible: Tensor, capacity: tuple[int, int] | None, log_sizes: Tensor | None = None
    ) -> None:
        self.full, self.kept, self.filled = rows.full, rows.index.shape[1], rows.filled
        self.index, self.live, self.visible = rows.index, rows.real, visible
        self.log_sizes = log_sizes
        self.static = capacity is not None
        self._last: dict[str, tuple[object, object]] = {}
        if capacity is not None:
            self._reserve(*capacity)

    def _reserve(self, wide: int, narrow: int) -> None:
        """Lay the map out for the whole capacity, so that no step changes a shape and none is compiled again."""
        new = torch.arange(self.kept, narrow, device=self.index.device) + (self.full - self.kept)
        batch = self.index.shape[0]
        self.index = torch.cat((self.index, new.clamp(max=wide - 1).expand(batch, -1)), dim=1)
        self.live = torch.cat((self.live, (new < wide).expand(batch, -1)), dim=1)
        self.visible = F.pad(self.visible, (0, wide - self.full), value=True)
        if self.log_sizes is not None:
            self.log_sizes = F.pad(self.log_sizes, (0, wide - self.full))
        for part in (self.index, self.live, self.visible, *([] if self.log_sizes is None else [self.log_sizes])):
            torch._dynamo.mark_static_address(part, guard=False)

    def __getstate__(self) -> dict[str, Any]:
        """Copy without the mask of a step."""
        return {**self.__dict__, "_last": {}}

    def held(self, seen: int) -> KeptRows:
        """Return the rows that shortened layers hold of the first `seen` tokens."""
        return KeptRows(*self._extended(self.kept + seen - self.full), seen, self.filled)

    def seen(self, length: int) -> Tensor:
        """Return which of the first `length` tokens are neither padding nor dropped, shape (B, length)."""
        return F.pad(self.visible, (0, max(length - self.visible.shape[1], 0)), value=True)[:, :length]

    def select(self, change: Callable[[Tensor], Tensor]) -> None:
        """Follow samples that are repeated, selected or put in another order."""
        self.index, self.live, self.visible = change(self.index), change(self.live), change(self.visible)
        self.log_sizes = None if self.log_sizes is None else change(self.log_sizes)

    def has_mask(self, mask: object, kind: str) -> bool:
        """Tell whether an earlier layer of this step and of a kind was given the same mask."""
        last = self._last.get(kind)
        return last is not None and last[0] is mask

    def mask_of(self, kind: str) -> object:
        """Return what layers of a kind get in this step for their mask."""
        return self._last[kind][1]

    def make_mask(
        self,
        mask: object,
        hidden: Tensor,
        keys: int,
        build: Callable[[Tensor], object],
        *,
        kind: str,
        seen: int,
        shortened: bool,
    ) -> None:
        """Make what a layer of a step gets for its mask, and all later layers that are given the same.

        Parameters
        ----------
        mask : object
            What the layer was given, sized on the full layers.
        hidden : torch.Tensor
            Its inputs, shape (B, Q, E).
        keys : int
            Columns of the layer, those of the step included.
        build : callable
            Makes a mask out of what is visible, shape (B, keys), where the layer had none.
        kind : str
            What the layer lets a token see.
        seen : int
            Tokens that the layer has seen, those of the step included; more than `keys` where a window forgets some.
        shortened : bool
            Whether the layer's cache lacks the dropped tokens, or holds them and must hide them.
        """
        if kind in WINDOWED:
            short = self._windowed(mask, keys, seen, build, shortened=shortened)
        else:
            short = self._shortened(mask, keys, build) if shortened else self._hiding(mask, keys, build)
        if self.log_sizes is not None:
            short = self._weighed(short, hidden, keys, seen if kind in WINDOWED else keys, shortened=shortened)
        self._last[kind] = (mask, short)

    def forget_masks(self) -> None:
        """Drop the masks of a step that has ended, or of layers whose masks are made otherwise."""
        self._last = {}

    def columns(self, keys: int) -> Tensor:
        """Return the full position of each of `keys` columns, shape (B, keys), with -1 for filling."""
        index, live = self._extended(keys)
        return index.where(live, -1)

    def _extended(self, keys: int) -> tuple[Tensor, Tensor]:
        if self.static:
            return self.index[:, :keys], self.live[:, :keys]
        new = torch.arange(self.full, self.full + keys - self.kept, device=self.index.device)
        index = torch.cat((self.index, new.expand(self.index.shape[0], -1)), dim=1)
        return index, F.pad(self.live, (0, len(new)), value=True)

    def _shortened(self, mask: Any, keys: int, build: Callable[[Tensor], object]) -> object:
        if mask is None:
            return build(self._extended(keys)[1]) if self.filled else None
        if isinstance(mask, Tensor) and mask.ndim == 2 and self.static:  # noqa: PLR2004 - a mask of padding alone
            # A kernel that unpads gets a mask as long as what was seen, and cuts keys and values to it.
            keys = mask.shape[1] - self.full + self.kept
        return take_columns(mask, *self._extended(keys))

    def _windowed(
        self, mask: Any, keys: int, seen: int, build: Callable[[Tensor], object], *, shortened: bool
    ) -> object:
        """Return the mask of a layer whose cache forgets: by position, both in its own mask and in what it still has.

        The layer holds the newest tokens that stay, so that it has all that a window or chunk of as many reaches.
        """
        if shortened:
            index, live = self._extended(seen)
            total = self.full + seen - self.kept
        else:
            total = seen
            index = torch.arange(total, device=self.visible.device).expand(self.visible.shape[0], -1)
            live = F.pad(self.visible, (0, total - self.visible.shape[1]), value=True)
        index, live = index[:, seen - keys :], live[:, seen - keys :]
        if mask is None:
            # Nothing is beyond any window yet.
            return build(live) if self.filled or not shortened else None
        index = index - (total - _width(mask))
        return take_columns(mask, index.clamp(min=0), live & (index >= 0))

    def _weighed(self, mask: Any, hidden: Tensor, keys: int, seen: int, *, shortened: bool) -> Tensor:
        """Return a mask with the logarithms of the sizes added to its columns, the last `keys` of `seen`.

        Raises
        ------
        RuntimeError
            If there is no mask, and the cache has columns that are not filled.
        """
        logs: Any = self.log_sizes
        if mask is None and self.static:
            msg = "a step on a static cache came without a mask, so that which of its columns are filled is not known"
            raise RuntimeError(msg)
        if shortened:
            index = self._extended(seen)[0][:, seen - keys :]
        else:
            index = torch.arange(seen - keys, seen, device=logs.device).expand(logs.shape[0], -1)
        known = index < logs.shape[1]
        columns = logs.gather(1, index.clamp(max=logs.shape[1] - 1)).where(known, 0)
        return weighed_mask(open_mask(hidden, keys) if mask is None else mask, columns, hidden.dtype)

    def _hiding(self, mask: Any, keys: int, build: Callable[[Tensor], object]) -> object:
        if mask is None:
            return build(F.pad(self.visible, (0, keys - self.visible.shape[1]), value=True))
        return hide_columns(mask, self.visible)


def _width(mask: Any) -> int:
    """Return how many columns a mask of a tensor or of blocks has."""
    return int(mask.seq_lengths[1] if isinstance(mask, BlockMask) else mask.shape[-1])

"""The arguments of a shortened layer: its own, less the rows that were dropped."""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache, PreTrainedConfig

from iwp_transformers.layer_kinds import ATTENDING, RECURRENT, kind_of
from iwp_transformers.masks import MASKED, hide_columns, take_rows_and_columns
from iwp_transformers.rows import KeptRows
from iwp_transformers.versions import causal_mask

__all__ = ["ShortenedArguments"]


class ShortenedArguments:
    """Shortens what a prompt's layers are called with; what several layers share is shortened once.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the decoder.
    cache : transformers.Cache or None
        The cache of the forward.
    rows : KeptRows
        The rows that stay.
    visible : torch.Tensor
        Shape (B, T), bool: which tokens are neither padding nor dropped.
    before : callable
        Number of a layer to the columns that its attention has in front of those of the forward.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        cache: Cache | None,
        rows: KeptRows,
        visible: Tensor,
        before: Callable[[int], int] = lambda _index: 0,
    ) -> None:
        self._config, self._cache, self._rows, self._visible, self._before = config, cache, rows, visible, before
        self._known: dict[tuple[int, bool, int], tuple[object, Any]] = {}

    def hiding(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a layer that holds all tokens and hides the dropped ones."""
        mask = arguments.get("attention_mask")
        if kind_of(self._config, index) not in ATTENDING:
            return dict(arguments)
        before = self._before(index)
        if mask is None:
            visible = F.pad(self._visible, (before, 0), value=True)
            hiding = causal_mask(self._config, hidden, visible, self._cache, index)
        else:
            hiding = hide_columns(mask, self._visible, before)
        return {**arguments, "attention_mask": hiding}

    def shortened(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a layer that gets the rows that stay, `hidden` of shape (B, M, E)."""
        short = {name: self._once(name, value) for name, value in arguments.items() if name != "attention_mask"}
        if "position_ids" in arguments and self._config._attn_implementation not in MASKED:
            # Kernels that unpad take positions with gaps for several sequences in one row.
            short["position_ids"] = None
        if "attention_mask" in arguments:
            short["attention_mask"] = self._mask(index, hidden, arguments["attention_mask"])
        return short

    def _mask(self, index: int, hidden: Tensor, mask: Any) -> Any:
        kind = kind_of(self._config, index)
        before = self._before(index) if kind in ATTENDING else 0
        key = (id(mask), kind in ATTENDING, before)
        if key not in self._known:
            # The value is kept beside its answer, so that no other object can come to have its id.
            self._known[key] = (mask, self._shortened_mask(index, hidden, mask, kind, before))
        return self._known[key][1]

    def _shortened_mask(self, index: int, hidden: Tensor, mask: Any, kind: str, before: int) -> Any:
        keys = self._rows.index.shape[1]
        if mask is not None:
            if self._cache is not None and kind in ATTENDING:
                keys = self._cache.get_mask_sizes(keys, index)[0]
            return take_rows_and_columns(mask, self._rows, keys, before)
        if not self._rows.filled:
            return None
        if kind in ATTENDING:
            return causal_mask(self._config, hidden, self._rows.behind(before)[1], self._cache, index)
        return self._rows.real.to(hidden.device) if kind in RECURRENT else None

    def _once(self, name: str, value: Any) -> Any:
        if isinstance(value, Cache) or not isinstance(value, (Tensor, tuple, list, dict)) or not len(value):
            return value
        key = (id(value), False, 0)
        if key not in self._known:
            self._known[key] = (value, self._taken(name, value))
        return self._known[key][1]

    def _taken(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._taken(name, part) for key, part in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(self._taken(name, part) for part in value)
        if not isinstance(value, Tensor) or isinstance(value, BlockMask):
            return value
        batch, full = self._rows.index.shape[0], self._rows.full
        if value.ndim and value.shape[0] == full != batch and value.shape[1:2] != (full,):
            # One row for each token of all samples, such as a rotary embedding without an axis for them.
            return self._rows.gather(value[None], 1)
        for dim in range(1, value.ndim):
            if value.shape[dim] == full and value.shape[dim - 1] in (1, batch):
                return self._rows.gather(value, dim)
        if full in value.shape:
            msg = (
                f"layer argument `{name}` has shape {tuple(value.shape)}: one axis is as long as the prompt of {full}"
                f" tokens, but the one before it is not the batch of {batch}, so it is not known how to shorten it"
            )
            raise NotImplementedError(msg)
        return value

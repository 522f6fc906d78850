"""What the layers are called with for the chunks of a prompt, put together to what they would get in one piece."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iwp_transformers.masks import PADDING, may_attend, refusal

__all__ = ["JoinedChunks", "joined_masks"]


class JoinedChunks:
    """Puts together what layers are called with; what several layers share is put together once.

    Parameters
    ----------
    batch : int
        Samples B.
    lengths : sequence of int
        Tokens of each chunk.
    """

    def __init__(self, batch: int, lengths: Sequence[int]) -> None:
        self._batch, self._lengths = batch, lengths
        self._known: dict[tuple[int, ...], tuple[Sequence[object], Any]] = {}

    def arguments(self, chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the arguments of a layer for the whole prompt.

        Parameters
        ----------
        chunks : sequence of mapping
            Its arguments in each chunk, by name.

        Raises
        ------
        NotImplementedError
            If it is not known how to put one of them together, or a mask lets tokens see what is behind them.
        """
        names = dict.fromkeys(name for chunk in chunks for name in chunk)
        return {name: self._once(name, [chunk.get(name) for chunk in chunks]) for name in names}

    def _once(self, name: str, values: Sequence[Any]) -> Any:
        key = tuple(map(id, values))
        if key not in self._known:
            whole = joined_masks(values, self._lengths) if name == "attention_mask" else self._joined(name, values)
            # The values are kept beside their answer, so that no other objects can come to have their ids.
            self._known[key] = (values, whole)
        return self._known[key][1]

    def _joined(self, name: str, values: Sequence[Any]) -> Any:
        last = values[-1]
        if all(isinstance(value, dict) for value in values):
            return {key: self._joined(name, [value[key] for value in values]) for key in last}
        if all(isinstance(value, (tuple, list)) and len(value) == len(last) for value in values):
            return type(last)(self._joined(name, parts) for parts in zip(*values, strict=True))
        if all(isinstance(value, Tensor) for value in values):
            return self._joined_tensors(name, values)
        if all(value is last or (not isinstance(value, Tensor) and value == last) for value in values):
            return last
        raise NotImplementedError(_unjoinable(name, "differs from chunk to chunk"))

    def _joined_tensors(self, name: str, values: Sequence[Tensor]) -> Tensor:
        dims = [dim for dim in range(values[-1].ndim) if self._runs_over_tokens(values, dim)]
        behind_samples = [dim for dim in dims if dim and values[-1].shape[dim - 1] in (1, self._batch)]
        if len(behind_samples) == 1:
            return torch.cat(list(values), dim=behind_samples[0])
        # One row for each token of all samples, such as a rotary embedding without an axis for them.
        if not behind_samples and 0 in dims:
            return torch.cat(list(values), dim=0)
        if not dims and all(torch.equal(value, values[-1]) for value in values):
            return values[-1]
        raise NotImplementedError(
            _unjoinable(name, f"has shape {tuple(values[-1].shape)}, of which the tokens' axis cannot be told")
        )

    def _runs_over_tokens(self, values: Sequence[Tensor], dim: int) -> bool:
        """Tell whether an axis is as long as each chunk, and all others are alike."""
        others = {(*value.shape[:dim], *value.shape[dim + 1 :]) for value in values}
        lengths = [value.shape[dim] if value.ndim > dim else 0 for value in values]
        return len(others) == 1 and lengths == list(self._lengths)


def joined_masks(masks: Sequence[Tensor | None], lengths: Sequence[int]) -> Tensor | None:
    """Put the masks of a layer for the chunks of a prompt together.

    Parameters
    ----------
    masks : sequence of torch.Tensor or None
        For each chunk of C tokens, the layer's mask: of padding alone, shape (B, K), or (B, heads, C, K), where K
        counts all tokens up to the chunk's last, or the newest of them, or the columns of a static cache. None where
        nothing is hidden from a token but what is behind it.
    lengths : sequence of int
        Tokens of each chunk.

    Returns
    -------
    torch.Tensor or None
        The same kind of mask for the whole prompt, each token of which sees what it saw in its chunk.

    Raises
    ------
    NotImplementedError
        If a token may attend to one behind it, which another chunk could have held.
    """
    like = next((mask for mask in masks if mask is not None), None)
    if like is None or like.ndim == PADDING:
        # A mask of padding alone grows with the chunks.
        return masks[-1]
    ends = list(accumulate(lengths))
    squares = [
        _open_rows(like, length, end) if mask is None else mask
        for mask, length, end in zip(masks, lengths, ends, strict=True)
    ]
    # A window shows the newest columns only.
    firsts = [max(end - square.shape[-1], 0) for square, end in zip(squares, ends, strict=True)]
    widths = [first + square.shape[-1] for square, first in zip(squares, firsts, strict=True)]
    batch, heads, total = *(max(square.shape[dim] for square in squares) for dim in (0, 1)), max(ends[-1], *widths)
    rows = [
        F.pad(square, (first, total - width), value=refusal(square)).expand(batch, heads, -1, -1)
        for square, first, width in zip(squares, firsts, widths, strict=True)
    ]
    whole = torch.cat(rows, dim=2)
    if bool(may_attend(whole).triu(1).any()):
        raise NotImplementedError(
            _unjoinable("attention_mask", "lets tokens see what is behind them, which another chunk may hold")
        )
    return whole


def _open_rows(like: Tensor, length: int, end: int) -> Tensor:
    """Return a mask of the newest `length` of `end` tokens that hides nothing but what is behind each."""
    allowed = torch.ones(1, 1, length, end, dtype=torch.bool, device=like.device).tril(end - length)
    if like.dtype == torch.bool:
        return allowed
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, refusal(like))


def _unjoinable(name: str, what: str) -> str:
    return (
        f"layer argument `{name}` {what}: it is not known how to put the chunks of a prompt together; set"
        " `prefill_chunk_size` to another number, or to None"
    )

"""Several sequences in one row: told by positions that begin anew, or by a mask that keeps them apart."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iwp_transformers.masks import SQUARE, may_attend
from iwp_transformers.versions import cache_in

__all__ = ["check_packing"]

# Rows of M-RoPE positions when those of the text are put in front: text, time, height, width.
TEXT_AND_MULTIMODAL = 4


def check_packing(arguments: Mapping[str, Any], length: int, seen: int) -> None:
    """Raise if a row of a prompt holds several sequences.

    Parameters
    ----------
    arguments : mapping
        What the decoder is called with, by name.
    length : int
        Tokens of the forward.
    seen : int
        Tokens that the cache held before.

    Raises
    ------
    NotImplementedError
        If one does.
    """
    mask = arguments.get("attention_mask")
    apart = isinstance(mask, Tensor) and mask.ndim == SQUARE and not seen and _divides(mask[..., :length, :length])
    if apart or arguments.get("cu_seq_lens_q") is not None or _begins_anew(arguments):
        msg = "several sequences are packed into one row: pruning chooses for each row; use one sequence a row"
        raise NotImplementedError(msg)


def _divides(mask: Tensor) -> bool:
    """Tell whether a mask keeps a row's tokens apart: from some token on, none sees any before it."""
    allowed = may_attend(mask)[:, 0]
    # A token that does not see itself is padding.
    real = allowed.diagonal(dim1=1, dim2=2)
    length = real.shape[1]
    first = (allowed & real[:, None]).int().argmax(2).where(real, length)
    seen_from_here_on = first.flip(1).cummin(1).values.flip(1)
    tokens = torch.arange(length, device=mask.device)
    return bool((real & (real.cumsum(1) > 1) & (seen_from_here_on >= tokens)).any())


def _begins_anew(arguments: Mapping[str, Any]) -> bool:
    """Tell whether Transformers would read the positions as several sequences in a row."""
    positions = arguments.get("position_ids")
    if positions is None or arguments.get("attention_mask") is not None or cache_in(arguments) is not None:
        return False
    *rows, _, _ = positions.shape
    if rows:
        # Multimodal positions jump within one sequence; only the text row in front of their three tells.
        if rows != [TEXT_AND_MULTIMODAL]:
            return False
        positions = positions[0]
    return bool((positions.diff(dim=-1) != 1).any())

"""Multimodal rotary positions (M-RoPE) of kept tokens, and how they are passed on with the embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "AXES",
    "CHANNELS",
    "Span",
    "grid_places",
    "on_equal_axes",
    "prompt_positions",
    "read_places",
    "row_places",
    "with_places",
]

AXES = 3
"""Time, row and column."""

CHANNELS = 2 * AXES
"""Each in two channels, so that bfloat16, which counts to 256, holds 65,536 of them."""

DIGIT = 256


def grid_places(frames: int, rows: int, columns: int, time_step: float = 1.0) -> Tensor:
    """Return the place of each token of an image or video relative to its first one.

    Parameters
    ----------
    frames, rows, columns : int
        The grid of its N tokens.
    time_step : float
        Positions from frame to frame; places in time are rounded down.

    Returns
    -------
    torch.Tensor
        Shape (3, N), int64.

    Examples
    --------
    >>> grid_places(1, 2, 2).tolist()
    [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]
    """
    grid = torch.stack(torch.meshgrid(*map(torch.arange, (frames, rows, columns)), indexing="ij")).reshape(AXES, -1)
    grid[0] = (grid[0].double() * time_step).long()
    return grid


def row_places(count: int) -> Tensor:
    """Return the place of each token of a text, or of an image in one row with it, relative to the first.

    Parameters
    ----------
    count : int
        N.

    Returns
    -------
    torch.Tensor
        Shape (3, N), int64, equal on all axes.
    """
    return torch.arange(count).expand(AXES, -1)


def on_equal_axes(text_config: Any) -> None:
    """Let a decoder with plain rotary positions take three equal ones instead, which turn queries and keys alike.

    Only so does vLLM ask a model where its tokens stand.

    Parameters
    ----------
    text_config : transformers.PreTrainedConfig
        Its `rope_parameters` are changed, unless they have axes already or are of another type than "default".
    """
    rope = text_config.rope_parameters
    if "mrope_section" in rope or rope.get("rope_type", "default") != "default":
        return
    head = getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads
    pairs = int(head * rope.get("partial_rotary_factor", 1.0)) // 2
    rope["mrope_section"] = [pairs - 2 * (pairs // AXES), pairs // AXES, pairs // AXES]


def with_places(embeddings: Tensor, places: Tensor) -> Tensor:
    """Put places behind embeddings, as channels.

    Parameters
    ----------
    embeddings : torch.Tensor
        Shape (M, E).
    places : torch.Tensor
        Shape (3, M), from 0 to 65,535.

    Returns
    -------
    torch.Tensor
        Shape (M, E + 6).

    Raises
    ------
    ValueError
        If a place is too large.
    """
    if places.numel() and int(places.max()) >= DIGIT**2:
        msg = f"an image or video spans {int(places.max()) + 1} positions, expected at most {DIGIT**2}"
        raise ValueError(msg)
    digits = torch.cat([places // DIGIT, places % DIGIT])
    return torch.cat([embeddings, digits.T.to(embeddings)], dim=1)


def read_places(embeddings: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Separate embeddings and places. Embeddings without places get the places 0."""
    if embeddings.shape[1] == width:
        return embeddings, torch.zeros(AXES, len(embeddings), dtype=torch.int64, device=embeddings.device)
    channels = embeddings[:, width:].long().T
    return embeddings[:, :width], channels[:AXES] * DIGIT + channels[AXES:]


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """Where an image or video stands in a prompt that is already shortened.

    Attributes
    ----------
    offset, length : int
        Its first token, and the number M of its tokens.
    places : torch.Tensor
        Shape (3, N): those of all its tokens.
    """

    offset: int
    length: int
    places: Tensor


def prompt_positions(total: int, spans: Iterable[Span]) -> tuple[Tensor, int]:
    """Return the positions of a shortened prompt: all text stands where it stands in the whole one.

    Which tokens of an image were kept is not known when vLLM asks. So all tokens of an image that lost some stand at
    its first position, and what their embeddings carry is added when they are computed.

    Parameters
    ----------
    total : int
        Tokens of the shortened prompt.
    spans : iterable of Span
        In the order of the prompt.

    Returns
    -------
    torch.Tensor
        Shape (3, total), int64.
    int
        What is added to the index of a decoded token to get its position.
    """
    parts, done, position = [], 0, 0
    for span in spans:
        parts.append(position + row_places(span.offset - done))
        position += span.offset - done
        whole = span.length == span.places.shape[1]
        parts.append(position + (span.places if whole else torch.zeros(AXES, span.length, dtype=torch.int64)))
        position += int(span.places.max()) + 1
        done = span.offset + span.length
    parts.append(position + row_places(total - done))
    return torch.cat(parts, dim=1), position - done

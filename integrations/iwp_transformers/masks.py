"""Attention masks as pure functions: a layer's own mask loses rows and columns, and is never rebuilt.

A mask has shape (B, K), for kernels that unpad; (B, heads, Q, K), where B and heads may be 1, with True or 0 for what
may be attended to; or it is a `BlockMask` of flex attention.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from iwp_transformers.rows import KeptRows

__all__ = [
    "MASKED",
    "PADDING",
    "SQUARE",
    "WEIGHING",
    "allowed_rows",
    "block_mask",
    "check_weighing",
    "hide_columns",
    "may_attend",
    "open_mask",
    "real_tokens",
    "refusal",
    "take_columns",
    "take_rows_and_columns",
    "weighed_mask",
]

# Attention implementations that look at nothing but the mask; others unpad, and know windows by their own arguments.
MASKED = ("eager", "sdpa", "flex_attention")
# Those whose mask may be added to logits.
WEIGHING = ("eager", "sdpa")
# Dimensions of a mask that tells padding alone, and of one that tells what each query may attend to.
PADDING, SQUARE = 2, 4


def real_tokens(attention_mask: object, shape: tuple[int, int], device: torch.device, before: int = 0) -> Tensor:
    """Return which tokens of a forward are no padding.

    Parameters
    ----------
    attention_mask : torch.Tensor, BlockMask, mapping of str to these, or None
        What the model or its decoder was given; None means that nothing is padding.
    shape : tuple of int
        Samples B and tokens T.
    device : torch.device
        Where the answer goes.
    before : int, default 0
        Tokens that the cache holds in front of them.

    Returns
    -------
    torch.Tensor
        Shape (B, T), bool.

    Raises
    ------
    NotImplementedError
        If padding cannot be read from the mask.
    """
    masks = attention_mask.values() if isinstance(attention_mask, dict) else (attention_mask,)
    # Where one kind of layers has a mask for padding, all have; the others need none.
    mask = next((mask for mask in masks if mask is not None), None)
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    batch, length = shape
    tokens = torch.arange(length, device=device)
    if isinstance(mask, BlockMask):
        samples = torch.arange(batch, device=device)[:, None].expand(shape)
        head = torch.zeros((), dtype=torch.int64, device=device)
        allowed = mask.mask_mod(samples.flatten(), head, tokens.repeat(batch), (tokens + before).repeat(batch))
        return allowed.view(shape) if allowed.numel() > 1 else allowed.expand(shape)
    if not isinstance(mask, Tensor) or mask.ndim not in (PADDING, SQUARE):
        what = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        msg = f"`attention_mask` has {what}, pruning reads padding from tensors of 2 or 4 dimensions"
        raise NotImplementedError(msg)
    if mask.ndim == PADDING:
        return mask[:, -length:].to(device=device, dtype=torch.bool).expand(shape)
    # Whatever else a mask says, a token that is no padding may attend to itself.
    tokens = tokens.to(mask.device)
    own = mask[:, 0, tokens, tokens + min(before, mask.shape[-1] - length)]
    return may_attend(own).to(device).expand(shape)


def take_rows_and_columns(mask: Any, rows: KeptRows, keys: int, before: int = 0) -> Any:
    """Return a layer's own mask of a forward for the rows that stay, as queries and as keys.

    Parameters
    ----------
    mask : torch.Tensor or BlockMask
        The layer's mask for all T tokens; a static cache makes it wider than T.
    rows : KeptRows
        The rows that stay.
    keys : int
        Columns that the shortened layer's attention has: `before` + M, or the capacity of a static cache.
    before : int, default 0
        Columns in front of those of the forward, which the layer's cache holds; they stay.

    Returns
    -------
    torch.Tensor or BlockMask
        The same kind of mask for M queries and `keys` columns. Rows that only fill up attend to themselves, so that
        their softmax is finite, and nothing attends to them.
    """
    if isinstance(mask, BlockMask):
        return _taken_blocks(mask, rows, keys, before)
    rows = rows.to(mask.device)
    batch = rows.index.shape[0]
    index, real = rows.behind(before)
    if mask.ndim == PADDING:
        return mask.expand(batch, -1).gather(1, index) * real
    mask = mask.expand(batch, *mask.shape[1:])
    lines = mask.gather(2, rows.index[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
    square = lines.gather(3, index[:, None, None, :].expand(*lines.shape[:3], -1))
    if rows.filled:
        square = _forbid(square, ~real[:, None, None, :])
        itself = F.pad(torch.diag_embed(~rows.real), (before, 0))
        square = square.masked_fill(itself[:, None], float(mask.dtype == torch.bool))
    return F.pad(square, (0, keys - index.shape[1]), value=refusal(mask))


def take_columns(mask: Any, index: Tensor, live: Tensor) -> Any:
    """Return a mask with other columns: column c is the old column `index[b, c]`, and forbidden where not `live`.

    Parameters
    ----------
    mask : torch.Tensor or BlockMask
        A full layer's mask.
    index : torch.Tensor
        Shape (B, C), int64.
    live : torch.Tensor
        Shape (B, C), bool.

    Returns
    -------
    torch.Tensor or BlockMask
        The mask with C columns.
    """
    if isinstance(mask, BlockMask):
        own = mask.mask_mod
        last = index.shape[1] - 1

        def taken(sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            column = key.clamp(max=last)
            return own(sample, head, query, index[sample, column]) & live[sample, column] & (key <= last)

        return block_mask(taken, index.shape[0], mask.seq_lengths[0], index.shape[1], index.device)
    index, live = index.to(mask.device), live.to(mask.device)
    if mask.ndim == PADDING:
        return mask.expand(index.shape[0], -1).gather(1, index) * live
    index, live = index[:, None, None, :], live[:, None, None, :]
    mask = mask.expand(index.shape[0], *mask.shape[1:])
    return _forbid(mask.gather(3, index.expand(*mask.shape[:3], -1)), ~live)


def hide_columns(mask: Any, visible: Tensor, before: int = 0) -> Any:
    """Return a mask that forbids what is not `visible`, shape (B, C), behind `before` columns; others stay."""
    visible = F.pad(visible, (before, 0), value=True)
    if isinstance(mask, BlockMask):
        index = torch.arange(mask.seq_lengths[1], device=visible.device).expand(visible.shape[0], -1)
        return take_columns(mask, index, F.pad(visible, (0, index.shape[1] - visible.shape[1]), value=True))
    visible = F.pad(visible.to(mask.device), (0, max(mask.shape[-1] - visible.shape[1], 0)), value=True)
    if mask.ndim == PADDING:
        return mask * visible[:, : mask.shape[1]]
    return _forbid(mask, ~visible[:, None, None, :])


def check_weighing(implementation: str | None) -> None:
    """Raise unless masks of an attention implementation are added to its logits.

    Raises
    ------
    NotImplementedError
        If they are not: attention would be left unweighed.
    """
    if implementation not in WEIGHING:
        msg = (
            "tokens that stand for several weigh in attention by an additive mask, which attention implementation"
            f" {implementation!r} does not take; use `attn_implementation` {' or '.join(map(repr, WEIGHING))}"
        )
        raise NotImplementedError(msg)


def open_mask(hidden: Tensor, keys: int) -> Tensor:
    """Return the causal mask of the newest rows on `keys` columns, none of which is hidden, (1, 1, Q, keys), bool."""
    queries = hidden.shape[1]
    square = torch.ones(queries, keys, dtype=torch.bool, device=hidden.device)
    return square.tril(keys - queries)[None, None]


def weighed_mask(mask: Any, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an additive mask that also weighs its columns.

    Parameters
    ----------
    mask : torch.Tensor
        Shape (B, heads, Q, K): True, or an additive float, for what may be attended to.
    columns : torch.Tensor
        Shape (B, C): added to every logit of a column; those from C on stay as they are.
    dtype : torch.dtype
        Of queries and keys.

    Returns
    -------
    torch.Tensor
        Shape (B, heads, Q, K).

    Raises
    ------
    RuntimeError
        If the mask is no such tensor.
    """
    if not isinstance(mask, Tensor) or mask.ndim != SQUARE:
        msg = f"a layer's mask is a {type(mask).__name__}, expected a tensor (B, heads, Q, K) to add sizes to"
        raise RuntimeError(msg)
    lowest = torch.finfo(dtype).min
    columns = columns[..., : mask.shape[-1]].to(mask.device, dtype)
    columns = F.pad(columns, (0, mask.shape[-1] - columns.shape[-1]))[:, None, None]
    if mask.dtype == torch.bool:
        return columns.where(mask, lowest)
    return (mask + columns).clamp(min=lowest).to(dtype)


def allowed_rows(mask: Any, columns: Tensor, rows: Tensor, sample: int, window: int | None) -> Tensor:
    """Return what some queries of a sample may attend to.

    Parameters
    ----------
    mask : torch.Tensor, BlockMask or None
        The layer's own mask of a prompt; None where all that came before may be seen.
    columns : torch.Tensor
        Shape (R,), int64: position of each row of the layer in the input sequence, -1 for filling.
    rows : torch.Tensor
        Shape (n,), int64: the queries' rows.
    sample : int
        Row of the batch.
    window : int, optional
        Rows that a kernel without a square mask lets a query look back, itself included.

    Returns
    -------
    torch.Tensor
        Shape (1, heads, n, R), bool; heads may be 1.
    """
    everything = torch.arange(len(columns), device=columns.device)
    if isinstance(mask, BlockMask):
        queries, keys = torch.meshgrid(rows, everything, indexing="ij")
        at = torch.full_like(queries, sample)
        return mask.mask_mod(at, torch.zeros_like(at), queries, keys)[None, None]
    if isinstance(mask, Tensor) and mask.ndim == SQUARE:
        own = mask[sample if len(mask) > 1 else 0].to(columns.device)
        return may_attend(own[:, rows, : len(columns)])[None]
    back = rows[:, None] - everything
    allowed = (back >= 0) & (columns >= 0)
    if mask is not None:
        allowed = allowed & _padding(mask, sample, len(columns)).to(columns.device)
    return (allowed if window is None else allowed & (back < window))[None, None]


def _padding(mask: Tensor, sample: int, length: int) -> Tensor:
    return mask[sample if len(mask) > 1 else 0, -length:].bool()


def _taken_blocks(mask: BlockMask, rows: KeptRows, keys: int, before: int) -> BlockMask:
    own, index, real = mask.mask_mod, rows.index, rows.real
    columns, live = rows.behind(before)
    lowest, widest = index.shape[1] - 1, columns.shape[1] - 1

    def taken(sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row, column = query.clamp(max=lowest), key.clamp(max=widest)
        allowed = own(sample, head, index[sample, row], columns[sample, column])
        allowed = allowed & live[sample, column] & (key <= widest)
        return allowed | ((query + before == key) & ~real[sample, row])

    return block_mask(taken, index.shape[0], index.shape[1], keys, index.device)


def block_mask(allowed: Callable[..., Tensor], batch: int, queries: int, keys: int, device: torch.device) -> BlockMask:
    """Return a mask of flex attention for all heads."""
    return create_block_mask(allowed, batch, None, queries, keys, device=str(device))


def may_attend(mask: Tensor) -> Tensor:
    """Return a mask as bool."""
    return mask if mask.dtype == torch.bool else mask == 0


def refusal(mask: Tensor) -> float:
    """Return what a mask holds where nothing may be attended to."""
    return False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min


def _forbid(mask: Tensor, where: Tensor) -> Tensor:
    return mask.masked_fill(where, refusal(mask))

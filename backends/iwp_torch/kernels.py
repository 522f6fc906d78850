"""Torch versions of the core's overridable functions; their parameters and results are the reference's."""

import math

import torch
from torch import Tensor

from iwp_core import use_backend
from iwp_core._arrays import tiles
from iwp_core.comparison import LARGEST_EXPONENT
from iwp_core.identical import ODD
from iwp_core.norms import EASY
from iwp_core.norms import log_norm as reference_log_norm
from iwp_core.similarity import LOG_2

__all__ = ["all_finite", "duplication_block", "gaussian_rows", "hash_rows", "largest", "log_norm", "scatter", "take"]


def all_finite(array: Tensor) -> bool:
    """Sum first: one pass, and a finite sum has finite terms. An infinite one may be overflow, so then look closely."""
    total = array.sum(dtype=torch.float64 if array.dtype == torch.float64 else torch.float32)
    return math.isfinite(total.item()) or bool(torch.isfinite(array).all())


def duplication_block(
    rows: Tensor,
    cols: Tensor,
    other_rows: Tensor | None = None,
    other_cols: Tensor | None = None,
    *,
    gaussian: bool,
    clip: bool = False,
) -> Tensor:
    """Do what `iwp_core.comparison.duplication_block` does, in place."""
    similarity = torch.matmul(rows, cols.mT)
    if gaussian:
        if clip:
            similarity.clamp_(max=LARGEST_EXPONENT)
        similarity.exp2_()
    if other_rows is not None and other_cols is not None:
        similarity *= torch.matmul(other_rows, other_cols.mT)
    return similarity.square_().mean(dim=0)


def gaussian_rows(tokens: Tensor, center: Tensor, divisors: Tensor | None, *, scale: float) -> Tensor:
    """Write into one array; see `iwp_core.similarity.gaussian_rows`."""
    heads, count, width = tokens.shape
    rows = center.new_empty((heads, count, width + 2))
    moved = rows[..., :width]
    torch.sub(tokens, center, out=moved).mul_(scale)
    torch.linalg.vector_norm(moved, dim=-1, out=rows[..., width])
    offset = rows[..., width].square_().mul_(-0.5)
    if divisors is not None:
        offset.sub_(divisors, alpha=1 / LOG_2)
    rows[..., width + 1] = 1.0
    return rows


def log_norm(rows: Tensor) -> Tensor:
    """Take norms in one pass where squares stay in range; see `iwp_core.norms.log_norm`."""
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=dtype)
    least, most = torch.aminmax(norms)
    if least.item() > 1 / EASY and most.item() < EASY:
        return norms.log_()
    with use_backend("reference"):
        exact: Tensor = reference_log_norm(rows)
    return exact


def largest(scores: Tensor, count: int) -> Tensor:
    """Select instead of sorting: torch sorts a vector ten times slower than it finds the largest entries."""
    return torch.topk(scores, count).values


def scatter(target: Tensor, positions: Tensor, values: Tensor) -> Tensor:
    """Assign by index."""
    return target.index_put((positions,), values)


def take(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """Do without the search for negative indices."""
    return torch.index_select(x, axis, indices)


def hash_rows(array: Tensor, positions: Tensor) -> Tensor:
    """Add up the bits of coordinates, each times a number of its own; -0 is 0."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[array.itemsize]
    mixed = torch.int64 if bits is torch.int64 else torch.int32
    heads, _, width = array.shape
    count = torch.arange(heads * width, device=array.device)
    factors = ((count * (count + ODD)) * ODD + count).reshape(heads, 1, width).to(mixed)
    parts = []
    for tile in tiles(positions.shape[0]):
        coordinates = torch.index_select(array, 1, positions[tile]) + 0.0
        parts.append((coordinates.view(bits).to(mixed) * factors).sum(dim=(0, 2)))
    return torch.cat(parts)

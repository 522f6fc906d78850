"""Information magnitude of a batch through Triton: two passes over the keys and one over the values, in logarithms."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN202 - Triton reads annotations of kernels: only constants have one

import math

import torch
import triton  # type: ignore[import-untyped] # the package has no types
import triton.language as tl  # type: ignore[import-untyped] # the package has no types
from torch import Tensor

from iwp_torch.triton_factors import scaled_norm
from iwp_torch.triton_launch import launch
from iwp_torch.triton_places import Places, log_total_heads, mean_tokens, rows_of, strides

__all__ = ["ENTRIES", "log_magnitude"]

ENTRIES = 4096
"""Entries of a tile of tokens: 32 tokens of width 128, which four warps hold in 32 registers a thread."""

MOST_ROWS = 128
"""Most tokens of a tile, however narrow they are."""

SCALED = 1024
"""Tokens whose magnitudes one program scales."""

_NEVER = tl.constexpr(float("-inf"))


@triton.jit
def _safe_log(x):
    """Return log(x) for x >= 0, -inf at 0, without asking for log(0)."""
    return tl.where(x > 0, tl.log(tl.where(x > 0, x, 1.0)), _NEVER)


@triton.jit
def _log_norm(rows, here, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Return the log of the norm of each row."""
    largest, rest = scaled_norm(rows, here, WIDTH, BLOCK)
    return _safe_log(largest) + _safe_log(rest)


@triton.jit
def _log_kernel(moved, middle, query, root, LINEAR: tl.constexpr):
    """Return log|kappa(q, k)| of one query with keys that were moved by `middle`."""
    product = tl.sum(moved * query[None, :], axis=1) + tl.sum(query * middle)
    if LINEAR:
        return _safe_log(tl.abs(product))
    else:  # noqa: RET505 - Triton compiles one of two branches, not what follows a return
        return product / root


@triton.jit
def _add_exponential(highest, total, score):
    """Return the largest score and the sum of exponentials over it, with one more score."""
    higher = tl.maximum(highest, score)
    level = tl.where(higher > _NEVER, higher, 0.0)
    return higher, total * tl.exp(highest - level) + tl.exp(score - level)


@triton.jit
def log_scores(
    keys, key_sample_stride, key_head_stride, key_token_stride, center,
    values, value_sample_stride, value_head_stride, value_token_stride,
    queries, totals, scores, real, count, heads, group, root,
    WIDTH: tl.constexpr, OTHER_WIDTH: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, LINEAR: tl.constexpr,
    MASKED: tl.constexpr, POOL: tl.constexpr, SHIFT: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, OTHER_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write log scores, head by head (B, H * group, N), or with POOL the log of their sum (B, N).

    `KEY`: what is read from the keys: the "product" with the queries (B, H * group, D), the norm of the "feature" of
    the exponential kernel, their own "norm", or "nothing". `SHIFT`: subtract from each head its number in `totals`.
    `root`: the square root of D. Grid: tiles of tokens, samples.

    Identical tokens get identical numbers: each row of a tile is summed by the same operations.
    """
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = places < count
    sample = tl.program_id(1).to(tl.int64)
    row = rows_of(real, sample, places, here, count, MASKED)
    at = tl.arange(0, BLOCK)
    inside = at < WIDTH
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for index in range(heads):
        head = tl.full((), index, tl.int64)
        line = sample * heads + head
        rows = keys + sample * key_sample_stride + head * key_head_stride + row * key_token_stride
        base = tl.zeros([ROWS], tl.float32)
        if VALUE:
            at_head = values + sample * value_sample_stride + head * value_head_stride
            at_values = at_head + row * value_token_stride
            base += _log_norm(at_values, here, OTHER_WIDTH, OTHER_BLOCK)
        if KEY == "norm":
            base += _log_norm(rows, here, WIDTH, BLOCK)
        middle = tl.load(center + line * WIDTH + at, mask=inside, other=0.0)
        moved = tl.load(rows[:, None] + at[None, :], mask=here[:, None] & inside[None, :], other=0.0).to(tl.float32)
        moved = tl.where(inside[None, :], moved - middle[None, :], 0.0)
        if KEY == "feature":
            square = tl.sum(moved * (moved + 2.0 * middle[None, :]), axis=1) + tl.sum(middle * middle)
            base += square / (2.0 * root)
        for member in range(group):
            score = base
            if KEY == "product":
                query = tl.load(queries + (line * group + member) * WIDTH + at, mask=inside, other=0.0)
                score += _log_kernel(moved, middle, query, root, LINEAR)
            if SHIFT:
                score -= tl.load(totals + line * group + member)
            if POOL:
                highest, total = _add_exponential(highest, total, score)
            else:
                tl.store(scores + (line * group + member) * count + places, score, mask=here)
    if POOL:
        tl.store(scores + sample * count + places, highest + _safe_log(total), mask=here)


@triton.jit
def _log_one_minus_exp(x):
    """Return log(1 - exp(x)) for x <= 0, by a series near 0, where 1 - exp(x) cancels."""
    near = tl.maximum(x, -0.5)
    series = 1.0 + near / 9.0
    for step in tl.static_range(7):
        series = 1.0 + near / (8.0 - step) * series
    return _safe_log(tl.where(x == near, -near * series, 1.0 - tl.exp(x)))


@triton.jit
def scale_to_unit(scores, extremes, magnitude, count, ROWS: tl.constexpr):
    """Write the log of exp(scores) scaled to [0, 1] by the `extremes` (least, largest) of a sample; zeros if equal.

    Shapes (B, N) and (2, B). Grid: tiles of tokens, samples.
    """
    sample = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = places < count
    lowest, highest = tl.load(extremes + sample), tl.load(extremes + tl.num_programs(1) + sample)
    score = tl.load(scores + sample * count + places, mask=here, other=0.0)
    equal = lowest == highest
    lowest, highest = tl.where(equal, -1.0, lowest), tl.where(equal, 0.0, highest)  # -inf less -inf is no number
    span = highest + _log_one_minus_exp(lowest - highest)
    above = score > lowest
    finite = tl.where(above, score, highest)
    scaled = tl.minimum(finite + _log_one_minus_exp(tl.minimum(lowest - finite, 0.0)) - span, 0.0)
    tl.store(magnitude + sample * count + places, tl.where(equal, 0.0, tl.where(above, scaled, _NEVER)), mask=here)


READS = {
    "dual": ("product", True),
    "kernel": ("product", False),
    "gradient_norm": ("feature", True),
    "key_norm": ("feature", False),
    "raw_key_norm": ("norm", False),
    "value_norm": ("nothing", True),
}
"""What each metric reads from keys, and whether it reads values."""


def log_magnitude(
    keys: Tensor,
    values: Tensor,
    queries: Tensor | None,
    places: Places,
    *,
    metric: str,
    kernel: str,
    heads: str,
    center: Tensor | None = None,
) -> Tensor:
    """Do what `iwp_core.magnitude.log_magnitude` does for every sample of a batch, and look at no number on the host.

    Parameters
    ----------
    keys : torch.Tensor, shape (B, H, N, D)
    values : torch.Tensor, shape (B, H, N, Dv)
    queries : torch.Tensor, shape (B, Hq, D), or None
    places : Places
        Of the real tokens; N below is the count of the longest sample.
    metric, kernel, heads : str
        As in `iwp_core.select_tokens`.
    center : torch.Tensor, shape (B, H, D), optional
        `mean_tokens` of the keys.

    Returns
    -------
    torch.Tensor, shape (B, N)
        float32, by place. Bit for bit that of a batch of this sample alone.

    Notes
    -----
    Memory O(B N) float32 beside the inputs, O(B Hq N) for ``heads="softmax_mean"``.
    """
    reads_keys, reads_values = READS[metric]
    if reads_keys == "feature" and kernel == "linear":
        reads_keys = "norm"  # its feature map is the identity
    samples, count, _, width = keys.shape
    group = queries.shape[1] // count if queries is not None and reads_keys == "product" else 1
    middle = mean_tokens(keys, places) if center is None else center
    asked = middle if queries is None else queries.to(torch.float32).contiguous()
    block, other_block = triton.next_power_of_2(width), triton.next_power_of_2(values.shape[-1])
    rows = max(1, min(MOST_ROWS, ENTRIES // max(block, other_block)))

    def scores(*, pool: bool, totals: Tensor | None) -> Tensor:
        shape = (samples, places.count) if pool else (samples, count * group, places.count)
        written = torch.empty(shape, dtype=torch.float32, device=keys.device)
        launch(
            log_scores, (triton.cdiv(places.count, rows), samples),
            keys=keys, **strides("key_", keys), center=middle, values=values, **strides("value_", values),
            queries=asked, totals=middle if totals is None else totals, scores=written, **places.arguments,
            heads=count, group=group, root=math.sqrt(width),
            WIDTH=width, OTHER_WIDTH=values.shape[-1], KEY=reads_keys, VALUE=reads_values, LINEAR=kernel == "linear",
            POOL=pool, SHIFT=totals is not None, ROWS=rows, BLOCK=block, OTHER_BLOCK=other_block,
        )  # fmt: skip
        return written

    totals = log_total_heads(scores(pool=False, totals=None), places) if heads == "softmax_mean" else None
    pooled = scores(pool=True, totals=totals)
    extremes = torch.stack(torch.aminmax(pooled, dim=-1))
    magnitude = torch.empty_like(pooled)
    launch(
        scale_to_unit, (triton.cdiv(places.count, SCALED), samples),
        scores=pooled, extremes=extremes, magnitude=magnitude, count=places.count, ROWS=SCALED,
    )  # fmt: skip
    return magnitude

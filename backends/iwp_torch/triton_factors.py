"""Triton kernels for the factors of a similarity: numbers of each token, columns of a chunk, and their comparison.

A factor is a cosine or the Gaussian of the exponential kernel (`iwp_core.similarity`). Comparing reads the tokens as
they are, in their own dtype, and the columns of a chunk prepared once:

cosine
    A column is scaled by a power of two to a length in (1/2, 1], which is exact and keeps the product in range. The
    token's inverse norm and the column's weight do the rest.
Gaussian
    The exponent is x_i.y_j - |x_i|^2 / 2 - |y_j|^2 / 2 with keys moved by the mean key and scaled. float32 keys are
    moved as they are read. A moved bfloat16 or float16 key has more digits than its dtype, so only columns are moved
    and are held as a sum of two numbers of that dtype: k_i.y_j - center.y_j is exact but for the sum in float32, whose
    terms are no larger than |k_i| |y_j| (not |k_i| |k_j|: keys may have a common part of norm 300).

Samples of a batch are lines of a grid; `iwp_torch.triton_places` says where their tokens are.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN202, ANN201 - Triton reads annotations of kernels: only constants have one

import triton  # type: ignore[import-untyped] # the package has no types
import triton.language as tl  # type: ignore[import-untyped] # the package has no types

from iwp_torch.triton_places import rows_of

__all__ = ["INTERPRETED", "compare", "prepare_columns", "prepare_tokens", "scaled_norm"]

MOST = tl.constexpr(2.0**126)
"""Largest inverse norm: that of the smallest normal float32, so that no weight is infinite."""


@triton.jit
def _load(rows, here, width: tl.constexpr, first, BLOCK: tl.constexpr):
    """Read one block of coordinates of some rows in float32, zeros beyond the width."""
    at = first + tl.arange(0, BLOCK)
    return tl.load(rows[:, None] + at[None, :], mask=here[:, None] & (at < width)[None, :], other=0.0).to(tl.float32)


INTERPRETED = not isinstance(_load, triton.JITFunction)
"""Whether kernels run in Triton's interpreter, on the CPU (``TRITON_INTERPRET=1``)."""

_WIDEN = tl.constexpr(INTERPRETED)
"""The interpreter would multiply the bits of bfloat16 numbers as integers; their products are exact in float32."""


@triton.jit
def scaled_norm(rows, here, width: tl.constexpr, BLOCK: tl.constexpr):
    """Return the largest absolute coordinate of each row and the norm over it: squares neither overflow nor vanish."""
    largest = tl.max(tl.abs(_load(rows, here, width, 0, BLOCK)), axis=1)
    for first in range(BLOCK, width, BLOCK):
        largest = tl.maximum(largest, tl.max(tl.abs(_load(rows, here, width, first, BLOCK)), axis=1))
    safe = tl.where(largest > 0, largest, 1.0)[:, None]
    x = _load(rows, here, width, 0, BLOCK) / safe
    squares = tl.sum(x * x, axis=1)
    for first in range(BLOCK, width, BLOCK):
        x = _load(rows, here, width, first, BLOCK) / safe
        squares += tl.sum(x * x, axis=1)
    return largest, tl.sqrt(squares)


@triton.jit
def _half_square(rows, here, center, width: tl.constexpr, scale, BLOCK: tl.constexpr):
    """Return half the squared norm of moved rows, times `scale`."""
    squares = tl.zeros(here.shape, tl.float32)
    for first in range(0, width, BLOCK):
        at = first + tl.arange(0, BLOCK)
        moved = _load(rows, here, width, first, BLOCK) - tl.load(center + at, mask=at < width, other=0.0)[None, :]
        squares += tl.sum(moved * moved, axis=1)
    return 0.5 * scale * squares


@triton.jit
def _prepare_factor(
    tokens, sample_stride, head_stride, token_stride, center, numbers, real, count, heads, scale,
    width: tl.constexpr, GAUSSIAN: tl.constexpr, MASKED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)  # of all samples
    sample = head // heads
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = places < count
    row = rows_of(real, sample, places, here, count, MASKED)
    rows = tokens + sample * sample_stride + head % heads * head_stride + row * token_stride
    if GAUSSIAN:
        number = _half_square(rows, here, center + head * width, width, scale, BLOCK)
    else:
        largest, rest = scaled_norm(rows, here, width, BLOCK)
        safe = tl.where(largest > 0, largest, 1.0)
        number = tl.where(largest > 0, tl.minimum(1.0 / safe / tl.where(rest > 0, rest, 1.0), MOST), 0.0)
    tl.store(numbers + head * count + places, number, mask=here)


@triton.jit
def prepare_tokens(
    first, first_sample_stride, first_head_stride, first_token_stride, center, first_numbers,
    second, second_sample_stride, second_head_stride, second_token_stride, second_numbers,
    real, count, heads, scale,
    WIDTH: tl.constexpr, OTHER_WIDTH: tl.constexpr, GAUSSIAN: tl.constexpr, MASKED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, OTHER_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write each token's number (B, H, N): half its squared norm for a Gaussian, its inverse norm for a cosine.

    Grid: tiles of tokens, heads of all samples, factors.
    """
    if tl.program_id(2) == 0:
        _prepare_factor(
            first, first_sample_stride, first_head_stride, first_token_stride, center, first_numbers,
            real, count, heads, scale, WIDTH, GAUSSIAN, MASKED, ROWS, BLOCK,
        )  # fmt: skip
    else:
        _prepare_factor(
            second, second_sample_stride, second_head_stride, second_token_stride, center, second_numbers,
            real, count, heads, scale, OTHER_WIDTH, False, MASKED, ROWS, OTHER_BLOCK,
        )  # fmt: skip


@triton.jit
def _columns_here(wanted, sample, begin, size):
    """Return how many columns a sample is compared with: all `size`, or none once it has all tokens that it wants."""
    return tl.where(tl.load(wanted + sample) > begin + size, size, 0)


@triton.jit
def _prepare_column(
    tokens, sample_stride, head_stride, token_stride, center, numbers, real, chosen, wanted,
    columns, remainders, weights, count, heads, begin, size, total, room, scale,
    width: tl.constexpr, GAUSSIAN: tl.constexpr, MASKED: tl.constexpr, COLS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)  # of all samples
    sample = head // heads
    slots = tl.program_id(0) * COLS + tl.arange(0, COLS)
    here = slots < _columns_here(wanted, sample, begin, size)
    places = tl.load(chosen + sample * total + begin + slots, mask=here, other=0)
    row = rows_of(real, sample, places, here, count, MASKED)
    rows = tokens + sample * sample_stride + head % heads * head_stride + row * token_stride
    number = tl.load(numbers + head * count + places, mask=here, other=0.0)
    into = (head * room + slots) * width
    dtype = columns.dtype.element_ty
    if GAUSSIAN:
        weight = -number
        for first in range(0, width, BLOCK):
            at = first + tl.arange(0, BLOCK)
            middle = tl.load(center + head * width + at, mask=at < width, other=0.0)[None, :]
            moved = (_load(rows, here, width, first, BLOCK) - middle) * scale
            inside = here[:, None] & (at < width)[None, :]
            column = moved.to(dtype)
            tl.store(columns + into[:, None] + at[None, :], column, mask=inside)
            if dtype != tl.float32:
                remainder = (moved - column.to(tl.float32)).to(dtype)
                tl.store(remainders + into[:, None] + at[None, :], remainder, mask=inside)
                # Of the column as it is held: then its rounding meets moved tokens only, not their common part.
                held = column.to(tl.float32) + remainder.to(tl.float32)
                weight -= tl.sum(tl.where(inside, held * middle, 0.0), axis=1)
    else:
        # The exponent bits alone: the power of two below the inverse norm, or 0 for a row of zeros.
        power = (number.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
        weight = tl.where(power > 0, number / tl.where(power > 0, power, 1.0), 0.0)
        for first in range(0, width, BLOCK):
            at = first + tl.arange(0, BLOCK)
            column = _load(rows, here, width, first, BLOCK) * power[:, None]
            inside = here[:, None] & (at < width)[None, :]
            tl.store(columns + into[:, None] + at[None, :], column.to(dtype), mask=inside)
    tl.store(weights + head * room + slots, weight, mask=here)


@triton.jit(do_not_specialize=["begin", "size", "total"])
def prepare_columns(
    first, first_sample_stride, first_head_stride, first_token_stride, center, first_numbers,
    columns, remainders, weights,
    second, second_sample_stride, second_head_stride, second_token_stride, second_numbers,
    other_columns, other_weights,
    real, chosen, wanted, count, heads, begin, size, total, room, scale,
    WIDTH: tl.constexpr, OTHER_WIDTH: tl.constexpr, GAUSSIAN: tl.constexpr, MASKED: tl.constexpr,
    COLS: tl.constexpr, BLOCK: tl.constexpr, OTHER_BLOCK: tl.constexpr,
):  # fmt: skip
    """Gather chosen[:, begin : begin + size], of (B, total), as columns (B, H, room, D) of one weight (B, H, room).

    Grid: tiles of columns, heads of all samples, factors.
    """
    if tl.program_id(2) == 0:
        _prepare_column(
            first, first_sample_stride, first_head_stride, first_token_stride, center, first_numbers,
            real, chosen, wanted, columns, remainders, weights,
            count, heads, begin, size, total, room, scale, WIDTH, GAUSSIAN, MASKED, COLS, BLOCK,
        )  # fmt: skip
    else:
        _prepare_column(
            second, second_sample_stride, second_head_stride, second_token_stride, center, second_numbers,
            real, chosen, wanted, other_columns, other_columns, other_weights,
            count, heads, begin, size, total, room, scale, OTHER_WIDTH, False, MASKED, COLS, OTHER_BLOCK,
        )  # fmt: skip


@triton.jit
def _products(
    rows, here, center, columns, remainders, there, products,
    width: tl.constexpr, GAUSSIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the inner products of rows and columns, added to `products`."""
    for first in range(0, width, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = at < width
        x = tl.load(rows[:, None] + at[None, :], mask=here[:, None] & inside[None, :], other=0.0)
        y = tl.load(columns[None, :] + at[:, None], mask=there[None, :] & inside[:, None], other=0.0)
        if x.dtype == tl.float32:
            if GAUSSIAN:
                x -= tl.load(center + at, mask=inside, other=0.0)[None, :]
            products = tl.dot(x, y, products, input_precision="tf32x3")  # three TF32 products: float32 accuracy
        else:
            if _WIDEN:
                x, y = x.to(tl.float32), y.to(tl.float32)
            products = tl.dot(x, y, products)
            if GAUSSIAN:
                z = tl.load(remainders[None, :] + at[:, None], mask=there[None, :] & inside[:, None], other=0.0)
                if _WIDEN:
                    z = z.to(tl.float32)
                products = tl.dot(x, z, products)
    return products


@triton.jit(do_not_specialize=["begin", "size", "span"])
def compare(
    first, first_sample_stride, first_head_stride, first_token_stride, center, first_numbers,
    columns, remainders, weights,
    second, second_sample_stride, second_head_stride, second_token_stride, second_numbers,
    other_columns, other_weights,
    real, wanted, shared, count, begin, size, span, room, heads,
    WIDTH: tl.constexpr, OTHER_WIDTH: tl.constexpr, GAUSSIAN: tl.constexpr, SECOND: tl.constexpr, MASKED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, BLOCK: tl.constexpr, OTHER_BLOCK: tl.constexpr,
):  # fmt: skip
    """Raise each token's largest duplication, in `shared` (B, N), to that with the columns of its sample.

    Grid: tiles of tokens, spans of columns, samples. `shared` holds the bits of float32 numbers >= 0, which order like
    integers, so that programs of one tile can meet in an atomic maximum, whatever their order.

    Identical tokens get identical numbers: the tensor cores compute each entry of a tile by the same operations,
    wherever its row stands.
    """
    sample = tl.program_id(2).to(tl.int64)
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = places < count
    row = rows_of(real, sample, places, here, count, MASKED)
    width = _columns_here(wanted, sample, begin, size)
    largest = tl.zeros([ROWS], tl.float32)
    start = tl.program_id(1) * span
    for left in range(start, tl.minimum(start + span, width), COLS):
        slots = left + tl.arange(0, COLS)
        there = slots < size
        total = tl.zeros([ROWS, COLS], tl.float32)
        for index in range(heads):
            head = tl.full((), index, tl.int64)
            line = sample * heads + head
            slot = line * room + slots
            number = tl.load(first_numbers + line * count + places, mask=here, other=0.0)
            weight = tl.load(weights + slot, mask=there, other=0.0)
            similarity = _products(
                first + sample * first_sample_stride + head * first_head_stride + row * first_token_stride, here,
                center + line * WIDTH,
                columns + slot * WIDTH, remainders + slot * WIDTH, there, tl.zeros([ROWS, COLS], tl.float32),
                WIDTH, GAUSSIAN, BLOCK,
            )  # fmt: skip
            if GAUSSIAN:
                similarity = tl.exp(tl.minimum(similarity + weight[None, :] - number[:, None], 0.0))
            else:
                similarity *= number[:, None] * weight[None, :]
            if SECOND:
                other_number = tl.load(second_numbers + line * count + places, mask=here, other=0.0)
                other_weight = tl.load(other_weights + slot, mask=there, other=0.0)
                cosine = _products(
                    second + sample * second_sample_stride + head * second_head_stride + row * second_token_stride,
                    here, center,
                    other_columns + slot * OTHER_WIDTH, other_columns, there, tl.zeros([ROWS, COLS], tl.float32),
                    OTHER_WIDTH, False, OTHER_BLOCK,
                )  # fmt: skip
                similarity *= cosine * (other_number[:, None] * other_weight[None, :])
            total += similarity * similarity
        total = tl.where(there[None, :], total, 0.0)
        largest = tl.maximum(largest, tl.max(total, axis=1))
    largest = tl.minimum(largest / heads, 1.0)
    tl.atomic_max(shared + sample * count + places, largest.to(tl.int32, bitcast=True), mask=here, sem="relaxed")

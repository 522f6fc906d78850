"""How many tokens a `Tolerance` keeps: the error of dropping all but the first M of an order, for every M at once."""

import math
from collections.abc import Callable, Iterator

from iwp_core._arrays import Array, arange_indices, as_dtype, locate, namespace, safe_log, tiles
from iwp_core.budget import Tolerance
from iwp_core.comparison import Duplication
from iwp_core.magnitude import log_seen, query_blocks, single_queries
from iwp_core.norms import log_feature_norm, log_norm
from iwp_core.samples import Sample
from iwp_core.token_scores import TokenScores

__all__ = ["check_tolerance", "first_within", "log_deletion_errors", "log_output_errors"]

BLOCK = 1024
"""Tokens a side of the blocks of pairs that are summed."""

SLACK = 16
"""Rounding errors by which an error may exceed a tolerance, so that one that equals it on paper is within."""

FIRST = 64
"""Tokens that are ordered at first, where few may do; then twice as many, and so on."""


def check_tolerance(tolerance: Tolerance, queries: Array | None, kernel: str) -> None:
    """Check that what a bound reads is there.

    Raises
    ------
    TypeError
        If `queries` are missing.
    ValueError
        If the kernel is not that of softmax attention.
    """
    if tolerance.bound != "output":
        return
    if queries is None:
        msg = f"`queries` is None, expected an array (..., Hq, T, D): {tolerance!r} bounds what they read"
        raise TypeError(msg)
    if kernel != "exponential":
        msg = f"`kernel` is {kernel!r}, expected 'exponential': {tolerance!r} bounds outputs of softmax attention"
        raise ValueError(msg)


def first_within(
    tolerance: Tolerance, order: Callable[[int], Array], log_errors: Callable[[Array], Array], total: int
) -> Array:
    """Return the fewest first tokens of an order that keep within a tolerance.

    Parameters
    ----------
    tolerance : Tolerance
    order : callable
        Takes a count, returns that many positions (count,); more of them begin with the same ones.
    log_errors : callable
        Takes all positions (N,) in some order, returns the log of the error, as a share, once the first 1 .. N are
        kept, shape (N,).
    total : int
        Number of tokens N.

    Returns
    -------
    array of int, shape (M,)
    """
    # An error of pairs costs as much for few tokens as for all.
    count = total if tolerance.bound == "deletion" else min(FIRST, total)
    while True:
        first = order(count)
        xp, everyone = namespace(first), arange_indices(total, first)
        is_first, _ = locate(xp.sort(first), everyone)
        errors = log_errors(xp.concat([as_dtype(first, everyone.dtype), xp.nonzero(~is_first)[0]]))
        allowed = math.log(tolerance.share) + SLACK * float(xp.finfo(errors.dtype).eps)
        within = xp.nonzero(errors[:count] <= allowed)[0]
        if within.shape[0] > 0:
            return first[: int(within[0]) + 1]
        if count == total:  # errors that are no numbers, which only data that nobody validated give
            return first
        count = min(2 * count, total)


def log_output_errors(sample: Sample, order: Array) -> Array:
    """Return the log of the bound "output" of `Tolerance` on what follows the first 1 .. N tokens of an order, (N,).

    Memory O(N), and no more than a block of scores at a time.
    """
    xp = namespace(order)
    worst: Array = None
    for block in _log_outputs(sample):
        moved = xp.take(block, order, axis=-1)
        top = xp.max(moved, axis=-1, keepdims=True)
        top = xp.where(top > -xp.inf, top, xp.zeros_like(top))
        left = top + safe_log(_sums_from(xp.exp(moved - top)))
        worst = xp.max(left if worst is None else xp.concat([worst[None, :], left], axis=0), axis=0)
    return _after_each(worst)


def log_deletion_errors(sample: Sample, order: Array, kernel: str) -> Array:
    """Return the log of the largest deletion error of any head once the first 1 .. N tokens of an order are kept, (N,).

    ||W||^2 of the last tokens is the sum over them of ||dW_i||^2 + 2 <dW_i, sum of those behind i> (lemma 3), so that
    one pass over all pairs serves every number of tokens. O(N^2) products, memory O(N).
    """
    xp, shared = namespace(order), Duplication(sample.keys, sample.values, metric="kernel_key", kernel=kernel)
    features = log_feature_norm(sample.keys, kernel=kernel)
    longest = xp.max(features + log_norm(sample.values), axis=-1, keepdims=True)
    scale = xp.exp(features - xp.where(longest > -xp.inf, longest, xp.zeros_like(longest)))

    def updates(tokens: Array) -> Array:
        return (
            as_dtype(xp.take(sample.values, tokens, axis=1), scale.dtype) * xp.take(scale, tokens, axis=-1)[..., None]
        )

    parts, columns = [], list(tiles(order.shape[0], BLOCK))
    for index, tile in enumerate(columns):
        rows = order[tile]
        own = updates(rows)
        behind = own + 2 * xp.matmul(xp.triu(shared.signed(rows, rows), k=1), own)
        for other in columns[index + 1 :]:
            behind = behind + 2 * xp.matmul(shared.signed(rows, order[other]), updates(order[other]))
        parts.append(xp.sum(own * behind, axis=-1))
    squares = xp.clip(_sums_from(xp.concat(parts, axis=-1)), min=0.0)
    return xp.max(0.5 * _after_each(safe_log(squares)), axis=0)


def _log_outputs(sample: Sample) -> Iterator[Array]:
    """Yield, block by block of single queries, the log of how far each token can move their outputs, shape (R, N)."""
    xp, values = namespace(sample.keys), log_norm(sample.values)
    reach = xp.logaddexp(values, xp.max(values, axis=-1, keepdims=True))
    queries, context = single_queries(sample)
    tokens = TokenScores(sample.magnitude_keys, sample.values, ())
    for block, outside in query_blocks(queries, context, sample.magnitude_keys, "kernel"):
        logits = tokens.log_scores(block, metric="kernel", kernel="exponential")
        weights = xp.reshape(logits - log_seen(logits, outside), (reach.shape[0], -1, reach.shape[1]))
        yield xp.reshape(weights + reach[:, None, :], logits.shape)


def _sums_from(x: Array) -> Array:
    """Return the sum of each entry and all behind it, along the last axis."""
    xp = namespace(x)
    return xp.flip(xp.cumulative_sum(xp.flip(x, axis=-1), axis=-1), axis=-1)


def _after_each(logs: Array) -> Array:
    """Return logs of what is left from each entry on, (..., N), as shares of the first, for what follows each entry."""
    xp = namespace(logs)
    nothing, whole = xp.full_like(logs[..., :1], -xp.inf), logs[..., :1]
    shares = xp.where(whole > -xp.inf, logs - xp.where(whole > -xp.inf, whole, xp.zeros_like(whole)), nothing)
    return xp.concat([shares[..., 1:], nothing], axis=-1)

"""The information magnitude of one sample on CUDA: `iwp_core.magnitude.log_magnitude` in a handful of launches."""

from typing import Any

from iwp_core._arrays import accumulation_dtype
from iwp_core.comparison import Duplication
from iwp_core.pooling import QUERY_MAGNITUDES
from iwp_cupy.compiled import compiled, cupy, launch, same_precision, served, token_arguments

__all__ = ["LANES", "log_magnitude", "serves_magnitude"]

LANES = 128
"""Threads a block, and tokens a block where each thread has one: LANES of kernels.cu."""

SUMMERS = 256
"""Threads that add up one head: SUMMERS of kernels.cu."""

NOTHING, LENGTH, FEATURE = range(3)
"""What a metric reads of a key beside its product with the query: `KeyPart` of kernels.cu."""

KEY_PARTS = {"gradient_norm": FEATURE, "key_norm": FEATURE, "raw_key_norm": LENGTH}

READ_VALUES = ("dual", "gradient_norm", "value_norm")


def serves_magnitude(
    keys: Any, values: Any, queries: Any | None, *, heads: str | float, context: Any | None = None, **_others: Any
) -> bool:
    """Return whether the kernels apply: means over heads, dtypes of one precision, a device that they compile for."""
    if heads not in ("mean", "softmax_mean") or context is not None:
        return False
    return (queries is None or same_precision(keys, queries)) and served(keys, values)


def log_magnitude(
    keys: Any,
    values: Any,
    queries: Any | None,
    *,
    metric: str,
    kernel: str,
    heads: str,
    context: None = None,  # noqa: ARG001 - refused by `serves_magnitude`
    shared: Duplication | None = None,  # noqa: ARG001 - what it holds is worked out on the way
) -> Any:
    """Do what `iwp_core.magnitude.log_magnitude` does, in float64 up to the last rounding, and wait for nothing."""
    xp, run = cupy(), compiled(keys, values)
    with keys.device:
        scores = _log_scores(keys, values, queries if metric in QUERY_MAGNITUDES else None, metric, kernel)
        rows, tokens = scores.shape
        strips = -(-tokens // LANES)
        totals = None
        if heads == "softmax_mean":
            totals = xp.empty((rows,), dtype="float64")
            launch(run["sum_heads"], rows, SUMMERS, scores, tokens, totals)
        pooled = xp.empty((tokens,), dtype="float64")
        launch(run["pool_heads"], strips, LANES, scores, totals, rows, tokens, pooled)
        lowest, highest = pooled.min(keepdims=True), pooled.max(keepdims=True)
        scaled = xp.empty((tokens,), dtype=accumulation_dtype(keys))
        launch(run["scale_scores"], strips, LANES, pooled, lowest, highest, tokens, scaled)
    return scaled


def _log_scores(keys: Any, values: Any, queries: Any | None, metric: str, kernel: str) -> Any:
    """Return the log scores of table 1 in float64, (Hq, N) if a query is read, else (H, N)."""
    xp, linear = cupy(), kernel == "linear"
    heads, tokens, _ = keys.shape
    rows = heads if queries is None else queries.shape[0]
    key_part = KEY_PARTS.get(metric, NOTHING)
    if key_part == FEATURE and linear:  # then phi(k) is k
        key_part = LENGTH
    scores = xp.empty((rows, tokens), dtype="float64")
    launch(
        compiled(keys, values)["score_heads"],
        heads * -(-tokens // LANES),
        LANES,
        *token_arguments(keys),
        *token_arguments(values),
        None if queries is None else xp.ascontiguousarray(queries, dtype="float64"),
        rows // heads,
        tokens,
        key_part,
        int(metric in READ_VALUES),
        int(linear),
        scores,
    )
    return scores

"""The information magnitude of one sample on CUDA: `iwp_core.magnitude.log_magnitude` in five launches."""

from typing import Any

from iwp_core._arrays import accumulation_dtype
from iwp_cupy.compiled import compiled, cupy, launch, same_precision, served, token_arguments

__all__ = ["LANES", "log_magnitude", "serves_magnitude"]

LANES = 128
"""Threads a block, and tokens a block where each thread has one: LANES of kernels.cu."""

SUMMERS = 256
"""Threads that add up one head: SUMMERS of kernels.cu."""

NOTHING, LENGTH, FEATURE = range(3)
"""What a metric reads of a key beside its product with the query: `KeyPart` of kernels.cu."""


def serves_magnitude(keys: Any, values: Any, queries: Any | None, **_options: Any) -> bool:
    """Return whether the kernels apply: dtypes of one precision, and a device that they compile for."""
    return (queries is None or same_precision(keys, queries)) and served(keys, values)


def log_magnitude(keys: Any, values: Any, queries: Any | None, *, metric: str, kernel: str, heads: str) -> Any:
    """Do what `iwp_core.magnitude.log_magnitude` does, in float64 up to the last rounding, and wait for nothing."""
    run = compiled(keys, values)
    xp, linear = cupy(), kernel == "linear"
    count, tokens, width = keys.shape
    reads_query = metric in {"dual", "kernel"}
    key_part = NOTHING
    if metric == "raw_key_norm" or (metric in {"gradient_norm", "key_norm"} and linear):
        key_part = LENGTH
    elif metric in {"gradient_norm", "key_norm"}:
        key_part = FEATURE
    with keys.device:
        query = xp.ascontiguousarray(queries, dtype="float64") if reads_query else None
        rows = queries.shape[0] if reads_query else count
        strips = -(-tokens // LANES)
        scores = xp.empty((rows, tokens), dtype="float64")
        launch(
            run["score_heads"],
            count * strips,
            LANES,
            *token_arguments(keys),
            *token_arguments(values),
            query,
            rows // count,
            tokens,
            key_part,
            int(metric in {"dual", "gradient_norm", "value_norm"}),
            int(linear),
            scores,
        )
        totals = None
        if heads == "softmax_mean":
            totals = xp.empty((rows,), dtype="float64")
            launch(run["sum_heads"], rows, SUMMERS, scores, tokens, totals)
        pooled = xp.empty((tokens,), dtype="float64")
        launch(run["pool_heads"], strips, LANES, scores, totals, rows, tokens, pooled)
        scaled = xp.empty((tokens,), dtype=accumulation_dtype(keys))
        lowest, highest = pooled.min(keepdims=True), pooled.max(keepdims=True)
        launch(run["scale_scores"], strips, LANES, pooled, lowest, highest, tokens, scaled)
    return scaled

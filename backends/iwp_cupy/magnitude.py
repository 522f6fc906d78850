"""The information magnitude of a batch on CUDA: `iwp_core.magnitude.log_magnitude` in a handful of launches."""

from typing import Any

from iwp_core._arrays import accumulation_dtype
from iwp_core.comparison import Duplication
from iwp_core.pooling import QUERY_MAGNITUDES
from iwp_cupy.compiled import compiled, cupy, launch, same_precision, served, token_arguments
from iwp_cupy.places import Places, everywhere

__all__ = ["LANES", "log_magnitude", "log_magnitudes", "serves_magnitude"]

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
    """Do what `iwp_core.magnitude.log_magnitude` does, as `log_magnitudes` of a batch of one sample."""
    with keys.device:
        asked = None if queries is None else queries[None]
        places = everywhere(1, keys.shape[-2])
        return log_magnitudes(keys[None], values[None], asked, places, metric=metric, kernel=kernel, heads=heads)[0]


def log_magnitudes(
    keys: Any, values: Any, queries: Any | None, places: Places, *, metric: str, kernel: str, heads: str
) -> Any:
    """Return the log magnitude by place, (B, N), in float64 up to the last rounding, and wait for nothing.

    Of keys (B, H, N, D), values (B, H, N, Dv) and queries (B, Hq, D), on the current device.
    """
    xp, run = cupy(), compiled(keys, values)
    scores = _log_scores(keys, values, queries if metric in QUERY_MAGNITUDES else None, places, metric, kernel)
    samples, rows, tokens = scores.shape
    strips = -(-samples * tokens // LANES)
    totals = None
    if heads == "softmax_mean":
        totals = xp.empty((samples, rows), dtype="float64")
        launch(run["sum_heads"], samples * rows, SUMMERS, scores, places.counts, rows, tokens, totals)
    pooled = xp.empty((samples, tokens), dtype="float64")
    launch(run["pool_heads"], strips, LANES, scores, totals, samples, rows, tokens, pooled)
    lowest, highest = pooled.min(axis=1), pooled.max(axis=1)
    scaled = xp.empty((samples, tokens), dtype=accumulation_dtype(keys))
    launch(run["scale_scores"], strips, LANES, pooled, lowest, highest, samples, tokens, scaled)
    return scaled


def _log_scores(keys: Any, values: Any, queries: Any | None, places: Places, metric: str, kernel: str) -> Any:
    """Return the log scores of table 1 in float64, (B, Hq, N) if a query is read, else (B, H, N)."""
    xp, linear = cupy(), kernel == "linear"
    samples, heads = keys.shape[:2]
    tokens = places.count
    rows = heads if queries is None else queries.shape[1]
    key_part = KEY_PARTS.get(metric, NOTHING)
    if key_part == FEATURE and linear:  # then phi(k) is k
        key_part = LENGTH
    scores = xp.empty((samples, rows, tokens), dtype="float64")
    launch(
        compiled(keys, values)["score_heads"],
        samples * heads * -(-tokens // LANES),
        LANES,
        *token_arguments(keys),
        *token_arguments(values),
        places.real,
        None if queries is None else xp.ascontiguousarray(queries, dtype="float64"),
        heads,
        rows // heads,
        tokens,
        key_part,
        int(metric in READ_VALUES),
        int(linear),
        scores,
    )
    return scores

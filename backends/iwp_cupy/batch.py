"""A batch of samples on CUDA: all of `iwp_core.select_tokens`, in as many launches as one sample takes.

Lengths and budgets may differ: a sample that has all the tokens it wants waits for the others.
"""

from typing import Any, cast

from iwp_core import PCMMR, Tolerance
from iwp_core.budget import tokens_to_keep
from iwp_core.kernels import Rule, Samples
from iwp_cupy.compiled import cupy
from iwp_cupy.magnitude import log_magnitudes, serves_magnitude
from iwp_cupy.pc_mmr import chosen_places, serves_factors
from iwp_cupy.places import everywhere, real_places

__all__ = ["select_batch", "serves_batch"]


def serves_batch(keys: Any, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any) -> bool:
    """Return whether `select_batch` serves a call: `PCMMR` with means over heads, and something to choose."""
    del keys
    if not rule.is_pc_mmr(samples, budget):
        return False
    one = serves_magnitude(
        samples.magnitude_keys, samples.values, samples.queries, heads=rule.heads, context=samples.context
    )
    return one and serves_factors(rule.factors(samples))


def select_batch(keys: Any, samples: Samples, budget: float, rule: Rule, **_others: Any) -> Any:
    """Choose for every sample at once; see `iwp_core.kernels.select_batch`.

    Without a mask the host waits for nothing. With one it waits once, for the numbers of real tokens: they say how many
    are kept.
    """
    xp, mask, queries = cupy(), samples.mask, samples.queries
    with keys.device:
        if mask is None:
            places = everywhere(keys.shape[0], samples.count)
            most = tokens_to_keep(budget, samples.count)
            wanted = xp.full_like(places.counts, most)
        else:
            places, counts = real_places(mask)
            counts = [tokens_to_keep(budget, count) for count in counts]
            most, wanted = max(counts), xp.array(counts, dtype="int32")
        if queries is not None:
            queries = queries[:, :, 0, :] if queries.shape[2] == 1 else queries.mean(axis=2, dtype="float64")
        scores = log_magnitudes(
            samples.magnitude_keys,
            samples.values,
            queries,
            places,
            metric=rule.magnitude,
            kernel=rule.kernel,
            heads=cast("str", rule.heads),
        )
        strategy = cast("PCMMR", rule.strategy)
        ordered = chosen_places(
            strategy.tempered(scores),
            rule.factors(samples),
            places,
            wanted,
            strategy.chunk_sizes(most),
            **strategy.penalties,
        )
        return places.positions(ordered).reshape((*samples.leading, most))

"""A batch of samples through Triton: all of `iwp_core.select_tokens`, in as many launches as one sample takes.

Lengths and budgets may differ: a sample that has all the tokens it wants waits for the others.
"""

from typing import cast

import torch
from torch import Tensor

from iwp_core import PCMMR
from iwp_core.budget import tokens_to_keep
from iwp_core.kernels import Rule, Samples
from iwp_torch.triton_magnitude import log_magnitude
from iwp_torch.triton_pc_mmr import progressive_chunked_mmr
from iwp_torch.triton_places import everywhere, mean_tokens, real_places

__all__ = ["select_batch"]


def select_batch(samples: Samples, budget: float, rule: Rule) -> Tensor:
    """Choose for every sample at once.

    Parameters
    ----------
    samples : Samples
    budget : int or float
    rule : Rule
        Of a `PCMMR`, with heads "mean" or "softmax_mean".

    Returns
    -------
    torch.Tensor, shape (B, M)
        int64, as `iwp_core.select_tokens` returns it.

    Notes
    -----
    Without a mask the host waits for nothing. With one it waits once, for the numbers of real tokens: they say how many
    are kept.
    """
    keys, mask = samples.magnitude_keys, samples.mask
    if mask is None:
        places = everywhere(keys.shape[0], samples.count, keys.device)
        most = tokens_to_keep(budget, samples.count)
        wanted = torch.full_like(places.counts, most)
    else:
        places, counts = real_places(mask)
        counts = [tokens_to_keep(budget, count) for count in counts]
        most, wanted = max(counts), torch.tensor(counts, dtype=torch.int32, device=keys.device)
    queries = samples.queries
    if queries is not None:
        queries = queries[:, :, 0, :] if queries.shape[2] == 1 else _averaged(queries)
    center = mean_tokens(keys, places)
    scores = log_magnitude(
        keys,
        samples.values,
        queries,
        places,
        metric=rule.magnitude,
        kernel=rule.kernel,
        heads=cast("str", rule.heads),
        center=center,
    )
    strategy, factors = cast("PCMMR", rule.strategy), rule.factors(samples)
    chosen = progressive_chunked_mmr(
        strategy.tempered(scores),
        factors,
        places,
        wanted,
        strategy.chunk_sizes(most),
        **strategy.penalties,
        center=center if factors[0].tokens is keys else None,
    )
    return places.positions(chosen)


def _averaged(queries: Tensor) -> Tensor:
    """Return the mean of the T queries of each head: of (B, Hq, T, D), (B, Hq, D)."""
    if queries.stride(-1) != 1:
        queries = queries.contiguous()
    return mean_tokens(queries, everywhere(queries.shape[0], queries.shape[2], queries.device))

"""Which calls the Triton kernels serve, and the way to them. Triton is imported only once a call asks for it."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from iwp_core import Tolerance
from iwp_core.duplication import PairwiseDuplication
from iwp_core.kernels import Cosine, Duplication, Gaussian, Rule, Samples

__all__ = [
    "POOLINGS",
    "log_magnitude",
    "progressive_chunked_mmr",
    "select_batch",
    "serves_factors",
    "supports_log_magnitude",
    "supports_progressive_chunked_mmr",
    "supports_select_batch",
]

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

POOLINGS = ("mean", "softmax_mean")
"""Ways of pooling heads for which there is a kernel of the magnitude."""

NARROWEST = 16
"""Least width of tokens that are compared: a product of a tensor core takes no less."""

WIDEST = 1024
"""Most width of keys and values whose magnitude is taken: a row is read at once."""

OLDEST_TRITON = (3, 4)

OLDEST_CARD = (8, 0)
"""Compute capability from which on tensor cores multiply bfloat16 and TF32."""


@cache
def _triton_serves(device: torch.device) -> bool:
    """Return whether there is a Triton that can run kernels on a device."""
    if device.type == "cuda":
        if torch.version.cuda is None or torch.cuda.get_device_capability(device) < OLDEST_CARD:
            return False
    elif os.environ.get("TRITON_INTERPRET") != "1":
        return False
    try:
        import triton  # type: ignore[import-untyped] # noqa: PLC0415 - may be missing, and takes long

        if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST_TRITON:
            return False
        from iwp_torch import triton_factors  # noqa: PLC0415 - needs Triton
    except ImportError:
        return False
    return bool(triton_factors.INTERPRETED) == (device.type == "cpu")


def _serves(*tensors: Tensor) -> bool:
    """Return whether the kernels can read some arrays of tokens."""
    return all(
        tensor.dtype in DTYPES and tensor.stride(-1) == 1 and _triton_serves(tensor.device) for tensor in tensors
    )


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which kernels start on the device of a tensor."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def supports_log_magnitude(
    keys: Tensor,
    values: Tensor,
    queries: Tensor | None,
    *,
    heads: str | float,
    context: Tensor | None = None,
    **_others: Any,
) -> bool:
    """Return whether `log_magnitude` serves a call: it knows means over heads only."""
    if heads not in POOLINGS or context is not None:
        return False
    fits = max(keys.shape[-1], values.shape[-1]) <= WIDEST
    return fits and _serves(keys, values) and (queries is None or queries.dtype in DTYPES)


def log_magnitude(
    keys: Tensor,
    values: Tensor,
    queries: Tensor | None,
    *,
    metric: str,
    kernel: str,
    heads: str,
    context: None = None,  # noqa: ARG001 - refused by `supports_log_magnitude`
    shared: Duplication | None = None,  # noqa: ARG001 - what it holds is worked out on the way
) -> Tensor:
    """Run `iwp_torch.triton_magnitude.log_magnitude`."""
    from iwp_torch import triton_magnitude, triton_places  # noqa: PLC0415 - need Triton

    with _on(keys):
        places = triton_places.everywhere(1, keys.shape[-2], keys.device)
        asked = None if queries is None else queries[None]
        return triton_magnitude.log_magnitude(
            keys[None], values[None], asked, places, metric=metric, kernel=kernel, heads=heads
        )[0]


def supports_progressive_chunked_mmr(
    scores: Tensor,
    duplication: PairwiseDuplication,
    sizes: Sequence[int],
    *,
    penalty: float,
    floor: float,
    exponent: int,
) -> bool:
    """Return whether `progressive_chunked_mmr` serves a call."""
    # However much work it is: the plain loop compares every candidate with every chosen token and never waits, the
    # core's lazy loop compares few of them and waits for each round. On an H100 the second took 29 to 93 times as long
    # at 100,000 tokens (benchmarks/README.md).
    del sizes, penalty, floor, exponent  # all are served
    if type(duplication) is not Duplication or scores.dtype != torch.float32:
        return False
    return serves_factors(duplication.factors)


def serves_factors(factors: Sequence[Cosine | Gaussian]) -> bool:
    """Return whether the kernels compare tokens by the factors of a similarity."""
    tokens = [factor.tokens for factor in factors]
    return min(factor.shape[-1] for factor in tokens) >= NARROWEST and _serves(*tokens)


def progressive_chunked_mmr(
    scores: Tensor, duplication: Duplication, sizes: Sequence[int], *, penalty: float, floor: float, exponent: int
) -> Tensor:
    """Run `iwp_torch.triton_pc_mmr.progressive_chunked_mmr`."""
    from iwp_torch import triton_pc_mmr, triton_places  # noqa: PLC0415 - need Triton

    with _on(scores):
        factors = [_of_one_sample(factor) for factor in duplication.factors]
        places = triton_places.everywhere(1, scores.shape[0], scores.device)
        wanted = torch.full_like(places.counts, sum(sizes))
        return triton_pc_mmr.progressive_chunked_mmr(
            scores[None], factors, places, wanted, sizes, penalty=penalty, floor=floor, exponent=exponent
        )[0]


def _of_one_sample(factor: Cosine | Gaussian) -> Cosine | Gaussian:
    """Return a factor as one of a batch of one."""
    return type(factor)(factor.tokens[None])


def supports_select_batch(samples: Samples, budget: float | Tolerance, rule: Rule) -> bool:
    """Return whether `select_batch` serves a call: `PCMMR` with means over heads, and something to choose."""
    if not rule.is_pc_mmr(samples, budget):
        return False
    serves_magnitude = supports_log_magnitude(
        samples.magnitude_keys, samples.values, samples.queries, heads=rule.heads, context=samples.context
    )
    return serves_magnitude and serves_factors(rule.factors(samples))


def select_batch(samples: Samples, budget: float | Tolerance, rule: Rule) -> Tensor:
    """Run `iwp_torch.triton_batch.select_batch`; its answers are distinct by construction, and need no check."""
    from iwp_torch import triton_batch  # noqa: PLC0415 - needs Triton

    with _on(samples.keys):
        kept = triton_batch.select_batch(samples, cast("float", budget), rule)
    return kept.reshape((*samples.leading, kept.shape[-1]))

"""Plain torch versions of the selections that `select_tokens` is timed against, and a NumPy twin of the dense one.

Each is written as its paper states it, with the cheap improvements that leave its answer alone (a running extremum
instead of one over all chosen tokens), so that ratios flatter nobody.
"""

import numpy as np
import torch
from greedy_rivals import div_prune
from numpy.typing import NDArray
from torch import Tensor

CHUNK, GROWTH, PENALTY, FLOOR = 2, 2, 5.0, 0.01


def magnitude(keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
    """Return the log of equation 10's head mean, up to min-max scaling, shape (N,)."""
    heads, _, width = keys.shape
    logits = torch.matmul(queries.unflatten(0, (heads, -1)), keys.mT) / width**0.5
    return torch.logsumexp((logits + values.norm(dim=-1).log()[:, None]).flatten(0, 1), dim=0)


def _features(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scaled = (keys - keys.mean(dim=1, keepdim=True)) * keys.shape[-1] ** -0.25
    return scaled, scaled.square().sum(-1) / 2, values / values.norm(dim=-1, keepdim=True)


def _duplication(features: tuple[Tensor, Tensor, Tensor], rows: Tensor | slice, cols: Tensor) -> Tensor:
    scaled, half_squares, units = features
    exponent = scaled[:, rows] @ scaled[:, cols].mT - half_squares[:, rows, None] - half_squares[:, None, cols]
    return (exponent.clamp(max=0).exp() * (units[:, rows] @ units[:, cols].mT)).square().mean(0)


def _log_scores(keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
    scores = magnitude(keys, values, queries)
    low, high = scores.min(), scores.max()
    return scores + torch.log(-torch.expm1(low - scores)) - high - torch.log(-torch.expm1(low - high))


def dense_pc_mmr(keys: Tensor, values: Tensor, queries: Tensor, count: int) -> Tensor:
    """Run algorithm 1 as printed: every remaining token meets every chunk."""
    scores = _log_scores(keys, values, queries)
    features = _features(keys, values)
    remaining = torch.arange(keys.shape[1], device=keys.device)
    chosen: list[Tensor] = []
    size, left = CHUNK, count
    while left:
        take = min(size, left)
        order = torch.argsort(scores[remaining], descending=True, stable=True)
        chosen.append(remaining[order[:take]])
        remaining = remaining[order[take:]].sort().values
        left -= take
        if left:
            shared = _duplication(features, remaining, chosen[-1]).amax(dim=1)
            scores[remaining] += torch.log((1 - PENALTY * shared).clamp(min=FLOOR))
        size *= GROWTH
    return torch.cat(chosen).sort().values


def dense_pc_mmr_numpy(
    keys: NDArray[np.float32], values: NDArray[np.float32], queries: NDArray[np.float32], count: int
) -> NDArray[np.intp]:
    """Run algorithm 1 as printed, in NumPy: operation for operation what `dense_pc_mmr` does."""
    heads, total, width = keys.shape
    logits = queries.reshape(heads, -1, width) @ keys.mT / np.float32(width**0.5)
    logits = (logits + np.log(np.linalg.norm(values, axis=-1))[:, None]).reshape(-1, total)
    largest = logits.max(axis=0)
    scores = largest + np.log(np.exp(logits - largest).sum(axis=0))
    low, high = scores.min(), scores.max()
    with np.errstate(divide="ignore"):
        scores = scores + np.log(-np.expm1(low - scores)) - high - np.log(-np.expm1(low - high))
    scaled = (keys - keys.mean(axis=1, keepdims=True)) * np.float32(width**-0.25)
    half_squares = np.square(scaled).sum(axis=-1) / 2
    units = values / np.linalg.norm(values, axis=-1, keepdims=True)
    remaining, chosen = np.arange(total), []
    size, left = CHUNK, count
    while left:
        take = min(size, left)
        order = np.argsort(-scores[remaining], kind="stable")
        newest = remaining[order[:take]]
        chosen.append(newest)
        remaining = np.sort(remaining[order[take:]])
        left -= take
        if left:
            exponent = scaled[:, remaining] @ scaled[:, newest].mT
            exponent = exponent - half_squares[:, remaining, None] - half_squares[:, None, newest]
            similarity = np.exp(np.minimum(exponent, 0)) * (units[:, remaining] @ units[:, newest].mT)
            shared = np.square(similarity).mean(axis=0).max(axis=1)
            scores[remaining] += np.log(np.maximum(1 - np.float32(PENALTY) * shared, np.float32(FLOOR)))
        size *= GROWTH
    return np.sort(np.concatenate(chosen))


def greedy_mmr(keys: Tensor, values: Tensor, queries: Tensor, count: int) -> Tensor:
    """Run greedy MMR (trade-off 0.5), one token a step with a running maximum."""
    relevance = _log_scores(keys, values, queries).exp()
    features = _features(keys, values)
    shared = torch.zeros_like(relevance)
    chosen = [relevance.argmax(keepdim=True)]
    for _ in range(count - 1):
        relevance.index_fill_(0, chosen[-1], -torch.inf)
        shared = torch.maximum(shared, _duplication(features, slice(None), chosen[-1])[:, 0])
        chosen.append((0.5 * relevance - 0.5 * shared).argmax(keepdim=True))
    return torch.cat(chosen).sort().values


def max_min_greedy(keys: Tensor, values: Tensor, queries: Tensor, count: int) -> Tensor:  # noqa: ARG001 - one signature for all
    """Run DivPrune's farthest-point greedy on cosine distances, heads side by side as one feature vector."""
    return div_prune(keys.transpose(0, 1).flatten(1), count)

"""Greedy loops of DivPrune, CDPruner, SCOPE and TrimTokenator as torch functions, for timing on a GPU.

Each follows the formulas of its paper and official code, with what leaves the answer alone and helps on a GPU: running
extrema and sums, no step that makes the host wait, rows instead of columns of symmetric matrices. What comes before
them (CLIP's text tower, attention of a class token) is given, so that ratios flatter nobody.

Shapes: features (N, E), text (T, E), relevance and saliency (N,); the answer is int64 (M,), ascending.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

LEAST = 1e-12
"""Residual below which CDPruner's Cholesky step would divide by nothing: M exceeds the rank of the kernel."""


def _cosines(features: Tensor) -> Tensor:
    units = normalize(features, dim=-1)
    return units @ units.mT


def _ascending(chosen: list[Tensor]) -> Tensor:
    return torch.cat(chosen).sort().values


def div_prune(features: Tensor, count: int) -> Tensor:
    """Take the token farthest from the chosen, by cosine distance; the first one is farthest from its nearest.

    Chosen tokens are masked, which the official code omits: without it, tokens repeat where fewer than M differ.
    """
    distances = _cosines(features).neg_().add_(1).fill_diagonal_(torch.inf)
    nearest = distances.amin(dim=1)
    chosen = [nearest.argmax(keepdim=True)]
    nearest = distances.index_select(0, chosen[0])[0]
    for _ in range(count - 1):
        nearest.index_fill_(0, chosen[-1], -torch.inf)
        chosen.append(nearest.argmax(keepdim=True))
        torch.minimum(nearest, distances.index_select(0, chosen[-1])[0], out=nearest)
    return _ascending(chosen)


def cd_pruner(features: Tensor, relevance: Tensor, count: int) -> Tensor:
    """Maximise a determinantal point process greedily, conditioned on relevance; in float32 at least."""
    total = features.shape[0]
    kernel = _cosines(features if features.dtype == torch.float64 else features.float())
    low, high = relevance.aminmax()
    quality = ((relevance - low + 1e-6) / (high - low)).to(kernel.dtype)
    kernel.mul_(quality).mul_(quality[:, None])
    residual = kernel.diagonal().clone()
    factors = kernel.new_empty(count, total)
    chosen: list[Tensor] = []
    for step in range(count):
        chosen.append(residual.argmax(keepdim=True))
        row = kernel.index_select(0, chosen[-1])[0]
        seen = factors[:step]
        row = torch.addmv(row, seen.mT, seen.index_select(1, chosen[-1])[:, 0], alpha=-1)
        torch.div(row, residual.index_select(0, chosen[-1]).clamp(min=LEAST).sqrt(), out=factors[step])
        residual.addcmul_(factors[step], factors[step], value=-1).index_fill_(0, chosen[-1], -torch.inf)
    return _ascending(chosen)


def scope(features: Tensor, saliency: Tensor, count: int) -> Tensor:
    """Take the token that adds most coverage times its saliency; coverage is each token's best cosine to the chosen."""
    similarity = _cosines(features)
    covered = similarity.new_zeros(similarity.shape[0])
    weights = saliency.float() if features.dtype != torch.float64 else saliency
    added = torch.empty_like(similarity)
    is_chosen = torch.zeros_like(covered, dtype=torch.bool)
    chosen: list[Tensor] = []
    for _ in range(count):
        torch.sub(similarity, covered, out=added)
        gain = added.clamp_(min=0).sum(dim=1, dtype=weights.dtype) * weights
        chosen.append(gain.masked_fill_(is_chosen, -torch.inf).argmax(keepdim=True))
        is_chosen.index_fill_(0, chosen[-1], value=True)
        torch.maximum(covered, similarity.index_select(0, chosen[-1])[0], out=covered)
    return _ascending(chosen)


def trim_tokenator(features: Tensor, text: Tensor, count: int) -> Tensor:
    """Keep the four fifths nearest to the text, then take the token least similar, in sum, to the chosen."""
    total = features.shape[0]
    wide = features if features.dtype == torch.float64 else features.float()
    aligned = -torch.cdist(wide, text.to(wide.dtype)).mean(dim=1)
    left = aligned.argsort(descending=True, stable=True)[: max(total * 4 // 5, count)].sort().values
    similarity = _cosines(features.index_select(0, left))
    shared = similarity.sum(dim=1, dtype=wide.dtype)
    chosen = [shared.argmin(keepdim=True)]
    shared = similarity.index_select(0, chosen[0])[0].to(wide.dtype)
    for _ in range(count - 1):
        shared.index_fill_(0, chosen[-1], torch.inf)
        chosen.append(shared.argmin(keepdim=True))
        shared += similarity.index_select(0, chosen[-1])[0]
    return left.index_select(0, torch.cat(chosen)).sort().values

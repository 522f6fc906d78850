"""The ways in which the methods' official codes compute, as torch functions, for timing.

Written from the formulas and steps of the papers and codes, with what makes them as slow or fast as they are: which
matrices are formed, what is computed anew in every step, and which loops run in Python. Nothing is guarded. What they
choose is compared with the library's choice in bench_methods.py before anything is timed.

Shapes: features and keys (N, E), attention (N,), heads already reduced; answers are int64 (M,), in any order, but where
tokens are merged.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

__all__ = ["cdpruner", "dart", "divprune", "pact", "prumerge", "rms_norm", "scope", "tome", "visionzip", "vispruner"]


def divprune(features: Tensor, count: int) -> Tensor:
    """All distances; in every step the least over the rows of all chosen tokens is formed anew."""
    units = features / features.norm(dim=1, keepdim=True)
    distances = 1 - units @ units.T
    chosen = torch.zeros(count, dtype=torch.int64)
    for step in range(count):
        if step == 0:
            scores = distances.topk(2, dim=0, largest=False).values[1]
        else:
            scores = distances.index_select(0, chosen[:step]).min(dim=0).values
        chosen[step] = scores.argmax()
    return chosen


def scope(features: Tensor, saliency: Tensor, count: int) -> Tensor:
    """In every step the gains of all tokens, from all pairs; of a batch, here of one."""
    units = (features / features.norm(dim=-1, keepdim=True))[None]
    similarity = torch.bmm(units, units.transpose(1, 2))
    selected = torch.zeros(1, len(features), dtype=torch.bool)
    covered = features.new_zeros(1, len(features))
    chosen = []
    for _ in range(count):
        open_pairs = similarity.masked_fill(selected.unsqueeze(1), 0)
        gains = torch.maximum(features.new_zeros(1), open_pairs - covered.unsqueeze(2)).sum(dim=1) * saliency
        best = gains.masked_fill(selected, -torch.inf).argmax(dim=1)
        selected[0, best] = True
        covered = torch.maximum(covered, similarity[0, best])
        chosen.append(best)
    return torch.cat(chosen)


def vispruner(features: Tensor, attention: Tensor, count: int) -> Tensor:
    """In every pass a matrix product of the even with the odd tokens that are left."""
    units = normalize(features, dim=-1)
    order = attention.argsort(descending=True)
    important, left = order[: count // 2], order[count // 2 :]
    keep = count - len(important)
    while len(left) > keep:
        even, odd = left[0::2], left[1::2]
        alike = (units[even] @ units[odd].T).max(dim=-1).values.argsort(descending=True)
        left = torch.cat([even[alike[min(8, len(left) - keep) :]], odd])
    return torch.cat([important, left])


def prumerge(features: Tensor, keys: Tensor, attention: Tensor, count: int) -> Tensor:
    """For every kept token the list of all others, their cosines to it, and a weighted sum of 32; merged tokens."""
    top = attention.topk(count).indices
    rest = torch.ones(len(features), dtype=torch.bool)
    rest[top] = False
    kept = [features[top], normalize(keys[top], dim=-1), attention[top]]
    others = [features[rest], normalize(keys[rest], dim=-1), attention[rest]]
    merged = []
    for i in range(count):
        states, units, weights = (
            torch.cat([mine[None, :i], mine[None, i + 1 :], theirs[None]], dim=1)
            for mine, theirs in zip(kept, others, strict=True)
        )
        near = torch.bmm(kept[1][None, i : i + 1], units.transpose(1, 2)).topk(32, dim=2).indices.squeeze()
        merged.append(kept[0][i] + (states[:, near] * weights[:, near, None]).sum(dim=1)[0])
    return torch.stack([*merged, (others[0] * others[2][:, None]).sum(dim=0)])


def cdpruner(features: Tensor, quality: Tensor, count: int) -> Tensor:
    """Form the full kernel, then one Cholesky row a step."""
    units = features / features.norm(dim=-1, keepdim=True)
    kernel = quality[:, None] * (units @ units.T) * quality[None, :]
    factors = features.new_zeros(count, len(features))
    left = kernel.diagonal().clone()
    chosen = []
    for step in range(count):
        best = left.argmax()
        chosen.append(best)
        projected = torch.einsum("t,tn->n", factors[:step, best], factors[:step])
        factors[step] = (kernel[best] - projected) / left[best].sqrt()
        left -= factors[step].square()
        left[best] = -torch.inf
    return torch.stack(chosen)


def dart(hidden: Tensor, keys: Tensor, pivots: list[int], quota: int) -> Tensor:
    """For every pivot a copy of all tokens left, and their cosines to it; keys (H, N, D) are brought together first.

    All pivots are kept, as if none of them were text: they are given, since chosen by the norms that are formed.
    """
    states = rms_norm(hidden)
    keys.permute(1, 0, 2).reshape(keys.shape[1], -1).norm(p=1, dim=-1).topk(len(pivots))
    left = set(range(len(states))).difference(pivots)
    chosen: list[int] = []
    for pivot in pivots:
        listed = list(left)
        far = (-cosine_similarity(states[pivot], states[listed], dim=-1)).topk(quota).indices.tolist()
        picked = [listed[i] for i in far]
        chosen += picked
        left.difference_update(picked)
    return torch.tensor(chosen + pivots)


def pact(hidden: Tensor, keys: Tensor, importance: Tensor, cutoff: float) -> Tensor:
    """Distances and densities of the survivors, centres in rounds with matrices of all tokens left; merged tokens."""
    survivors = importance.topk(int(0.55 * len(hidden))).indices.sort().values
    units = normalize(keys[survivors])
    distances = (1 - units @ units.T).clamp(min=0).fill_diagonal_(0)
    density = torch.exp(-((distances / 2) ** 2)).sum(dim=1).argsort().argsort()
    left = torch.arange(len(survivors))
    centres: list[Tensor] = []
    while len(left):
        mine = density[left]
        denser = mine[None, :] > mine[:, None]
        apart = distances[left][:, left]
        new = torch.where(denser, apart, torch.inf).min(dim=1).values > cutoff
        centres.append(left[new])
        left = left[(apart[:, new] > cutoff).all(dim=1)]
    every = torch.cat(centres)
    pruned = torch.ones(len(hidden), dtype=torch.bool)
    pruned[survivors] = False
    far = 1 - normalize(keys[pruned]) @ units[every].T
    nearest = torch.cat([distances[:, every], far]).min(dim=1)
    member = nearest.values <= 1.5 * cutoff
    rows = torch.cat([hidden[survivors], hidden[pruned]])[member]
    sums = hidden.new_zeros(len(every), hidden.shape[1]).index_add_(0, nearest.indices[member], rows)
    return sums / torch.bincount(nearest.indices[member])[:, None]


def visionzip(hidden: Tensor, keys: Tensor, attention: Tensor, dominant: int, contextual: int) -> Tensor:
    """One-hot assignment of the rest to evenly spaced targets; merged tokens."""
    mask = torch.ones(len(hidden), dtype=torch.bool)
    mask[attention.topk(dominant).indices] = False
    units = keys[mask] / keys[mask].norm(dim=-1, keepdim=True)
    rest = hidden.masked_select(mask[:, None]).view(-1, hidden.shape[1])
    targets = torch.arange(0, len(rest), len(rest) // contextual)[:contextual]
    others = ~torch.isin(torch.arange(len(rest)), targets)
    nearest = (units[others] @ units[targets].T).argmax(dim=1)
    one_hot = hidden.new_zeros(len(nearest), contextual).scatter_(1, nearest[:, None], 1)
    means = one_hot.T @ rest[others] / one_hot.sum(dim=0).clamp(min=1)[:, None]
    return torch.cat([hidden[~mask], rest[targets] + means])


def tome(metric: Tensor, x: Tensor, merge: int) -> Tensor:
    """Cosines of the two halves, and a scattered sum of the tokens and one of their sizes; merged tokens."""
    units = metric / metric.norm(dim=-1, keepdim=True)
    best, match = (units[0::2] @ units[1::2].T).max(dim=-1)
    order = best.argsort(descending=True)
    source, unmerged = order[:merge, None], order[merge:, None]
    into = match[:, None].gather(0, source)

    def joined(rows: Tensor) -> Tensor:
        even, odd, wide = rows[0::2], rows[1::2], (-1, rows.shape[1])
        sums = odd.scatter_reduce(0, into.expand(wide), even.gather(0, source.expand(wide)), reduce="sum")
        return torch.cat([even.gather(0, unmerged.expand(wide)), sums])

    sizes = x.new_ones(len(x), 1)
    return joined(x * sizes) / joined(sizes)


def rms_norm(states: Tensor) -> Tensor:
    """Send states through a language model's last norm, with weights of one, as DART does before it compares them."""
    scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
    return states.new_ones(states.shape[1]) * (states * scale)

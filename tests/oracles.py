"""A slow float64 reading of the paper (arXiv:2604.00757) that every array library is held to.

Nothing here is shared with the packages. Plain NumPy, loops where a loop is the clearest reading, differences of
keys where the packages may use a Gram matrix. Scores are kept as logarithms, because the kernel of a real model's
keys leaves even float64's range.

Shapes: keys (H, N, D), values (H, N, Dv), queries (Hq, D), log-magnitudes (N,), duplications (N, N).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Table: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp]], Floats]

QUERYLESS = ("gradient_norm", "key_norm", "raw_key_norm", "value_norm")
MAGNITUDES = ("dual", "kernel", *QUERYLESS)
SIMILARITIES = ("dual", "value", "hidden", "key", "kernel_key")
KERNELS = ("exponential", "linear")


def log(x: Floats | float) -> Floats:
    """Natural logarithm that takes 0 to -inf in silence."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x), dtype=np.float64)


def log_mean_exp(x: Floats, axis: int = 0) -> Floats:
    """Logarithm of the mean of exponentials; a column of -inf stays -inf."""
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    return log(np.mean(np.exp(x - top), axis=axis)) + np.squeeze(top, axis=axis)


def norms(x: Floats) -> Floats:
    """Euclidean length of each row."""
    return np.asarray(np.sqrt(np.sum(x * x, axis=-1)))


def cosines(x: Floats) -> Floats:
    """Cosine of each pair of rows (N, N); a zero row is similar to nothing."""
    length = norms(x)
    unit = np.where(length[:, None] > 0, x / np.where(length > 0, length, 1.0)[:, None], 0.0)
    return np.stack([np.sum(unit * row, axis=-1) for row in unit])


def log_kernel(x: Floats, y: Floats, kernel: str) -> Floats:
    """Log |kappa(x, y)| over the last axis."""
    product = np.sum(x * y, axis=-1)
    return product / math.sqrt(x.shape[-1]) if kernel == "exponential" else log(np.abs(product))


def log_update_norm(keys: Floats, values: Floats, kernel: str = "exponential") -> Floats:
    """Lemma 1 in logarithms: log of sqrt(kappa(k, k)) times the length of v, per head."""
    return 0.5 * log_kernel(keys, keys, kernel) + log(norms(values))


def log_head_scores(queries: Floats | None, keys: Floats, values: Floats, metric: str, kernel: str) -> Floats:
    """Table 1: each head's score of each token, as a logarithm; one row a query head, or a KV head without query."""
    without_query = {
        "gradient_norm": lambda: log_update_norm(keys, values, kernel),
        "key_norm": lambda: 0.5 * log_kernel(keys, keys, kernel),
        "raw_key_norm": lambda: log(norms(keys)),
        "value_norm": lambda: log(norms(values)),
    }
    if metric in without_query:
        return without_query[metric]()
    if queries is None:
        msg = f"the metric {metric!r} reads queries"
        raise ValueError(msg)
    group = queries.shape[0] // keys.shape[0]
    rows = []
    for head, query in enumerate(queries):
        row = log_kernel(keys[head // group], query, kernel)
        rows.append(row + log(norms(values[head // group])) if metric == "dual" else row)
    return np.stack(rows)


def log_magnitude(
    queries: Floats | None,
    keys: Floats,
    values: Floats,
    metric: str = "dual",
    kernel: str = "exponential",
    heads: str = "mean",
) -> Floats:
    """Equation 10 and appendix D: mean over heads, scaled to [0, 1] over the candidates, as a logarithm."""
    scores = log_head_scores(queries, keys, values, metric, kernel)
    if heads == "softmax_mean":
        total = log_mean_exp(scores, axis=1)
        scores = scores - np.where(np.isfinite(total), total, 0.0)[:, None]
    raw = log_mean_exp(scores, axis=0)
    low, high = np.min(raw), np.max(raw)
    if low == high:
        return np.zeros_like(raw)
    # log of (e^raw - e^low) / (e^high - e^low), each difference of exponentials taken from its larger term.
    below = np.subtract(low, raw, out=np.zeros_like(raw), where=raw > low)  # the least may be -inf, its gap is 0
    return raw + log(-np.expm1(below)) - high - log(-np.expm1(low - high))


def log_magnitude_of_each_query(
    queries: Floats, keys: Floats, values: Floats, metric: str = "dual", kernel: str = "exponential"
) -> Floats:
    """Ours: queries (Hq, T, D) score one after another, each head's scores summing to one; as a logarithm."""
    raw = np.zeros(keys.shape[1])
    for query in np.moveaxis(queries, 1, 0):
        for scores in log_head_scores(query, keys, values, metric, kernel):
            shares = np.exp(scores - np.max(scores))
            raw += shares / shares.sum()
    low, high = np.min(raw), np.max(raw)
    return np.zeros_like(raw) if low == high else log((raw - low) / (high - low))


def log_magnitude_by_shares(
    queries: Floats,
    keys: Floats,
    values: Floats,
    heads: str | float,
    context: Floats | None = None,
    metric: str = "dual",
    kernel: str = "exponential",
) -> Floats:
    """Ours: what each token adds to each output of queries (Hq, T, D), its share of all seen times its value's norm.

    `context` (Hq, T) is the log of what each query sees elsewhere; the largest over heads and queries counts, or the
    power mean of exponent p.
    """
    group = queries.shape[0] // keys.shape[0]
    raw = []
    for head in range(queries.shape[0]):
        for t in range(queries.shape[1]):
            logits = log_kernel(keys[head // group], queries[head, t], kernel)
            elsewhere = -np.inf if context is None else context[head, t]
            top = max(np.max(logits), elsewhere)
            seen = np.sum(np.exp(logits - top)) + np.exp(elsewhere - top)
            share = np.exp(logits - top) / seen
            raw.append(share * norms(values[head // group]) if metric == "dual" else share)
    table = np.stack(raw)
    pooled = np.max(table, axis=0) if heads == "max" else np.mean(table ** float(heads), axis=0) ** (1 / float(heads))
    low, high = np.min(pooled), np.max(pooled)
    return np.zeros_like(pooled) if low == high else log((pooled - low) / (high - low))


def update_cosine(keys: Floats, values: Floats, kernel: str = "exponential") -> Floats:
    """Proposition 1, per head and signed: (H, N, N)."""
    return np.stack([cosines(v) * kernel_cosine(k, kernel) for k, v in zip(keys, values, strict=True)])


def kernel_cosine(keys: Floats, kernel: str) -> Floats:
    """Second factor of proposition 1 for one head; by differences of keys, which nothing cancels in."""
    if kernel == "linear":
        return cosines(keys)
    width = 2.0 * math.sqrt(keys.shape[-1])
    return np.stack([np.exp(-np.sum((keys - row) ** 2, axis=-1) / width) for row in keys])


def duplication(
    keys: Floats,
    values: Floats,
    metric: str = "dual",
    kernel: str = "exponential",
    hidden: Floats | None = None,
) -> Floats:
    """Equation 12 and table 3: the squared similarity of each pair of tokens, its mean over heads (N, N)."""
    if metric == "hidden":
        if hidden is None:
            msg = "the metric 'hidden' reads hidden states"
            raise ValueError(msg)
        return cosines(hidden) ** 2
    similarity: dict[str, Callable[[Floats, Floats], Floats]] = {
        "dual": lambda k, v: cosines(v) * kernel_cosine(k, kernel),
        "value": lambda _, v: cosines(v),
        "key": lambda k, _: cosines(k),
        "kernel_key": lambda k, _: kernel_cosine(k, kernel),
    }
    per_head = [similarity[metric](k, v) ** 2 for k, v in zip(keys, values, strict=True)]
    return np.asarray(np.mean(per_head, axis=0))


def pair_lookup(table: Floats) -> Table:
    """Make the duplication callable of the Strategy protocol, answered from a full matrix."""
    return lambda rows, cols: table[np.asarray(rows)[:, None], np.asarray(cols)[None, :]]


def pc_mmr(
    log_scores: Floats,
    pairs: Table,
    count: int,
    *,
    chunk: int = 2,
    growth: float = 2.0,
    penalty: float = 5.0,
    floor: float = 0.01,
    exponent: int = 2,
    temper: float = 1.0,
    log: Callable[[Floats], Floats] = log,
) -> list[int]:
    """Algorithm 1, line by line, on logarithms of scores; the answer in the order of choice.

    `log` may be another library's: logarithms differ in the last bit, and so does which scores tie exactly.
    """
    scores = temper * np.array(log_scores, dtype=np.float64) if temper else np.zeros(len(log_scores))
    chosen: list[int] = []
    left = list(range(len(scores)))
    size = float(chunk)
    while len(chosen) < count:
        step = min(math.floor(size), count - len(chosen))
        newest = sorted(left, key=lambda i: (-scores[i], i))[:step]
        chosen += newest
        taken = set(newest)
        left = [i for i in left if i not in taken]
        if left and len(chosen) < count:
            rows = np.asarray(left)
            worst = np.max(pairs(rows, np.asarray(newest)), axis=1)
            worst = np.sqrt(worst) if exponent == 1 else worst
            scores[rows] += log(np.maximum(floor, 1.0 - penalty * worst))
        size *= growth
    return chosen


def mmr(scores: Floats, table: Floats, count: int, tradeoff: float = 0.5) -> list[int]:
    """Section 4.3's greedy rule on scores in [0, 1]; the answer in the order of choice."""
    chosen = [int(np.argmax(scores))]
    while len(chosen) < count:
        left = [i for i in range(len(scores)) if i not in chosen]
        gain = [tradeoff * scores[i] - (1 - tradeoff) * np.max(table[i, chosen]) for i in left]
        chosen.append(left[int(np.argmax(gain))])
    return chosen


def top_k(log_scores: Floats, count: int) -> list[int]:
    """Return the `count` largest scores, lower index first among equals."""
    return sorted(range(len(log_scores)), key=lambda i: (-log_scores[i], i))[:count]


def number_kept(budget: float, candidates: int) -> int:
    """Read a budget as the contract does: a count, or a fraction rounded half up and at least one."""
    if isinstance(budget, int):
        return min(budget, candidates)
    return max(1, math.floor(budget * candidates + 0.5))


def lazy_duplication(keys: Floats, values: Floats, kernel: str = "exponential") -> Table:
    """Dual duplication of the pairs asked for only, for sizes whose full table is too slow to fill."""
    lengths = norms(values)[..., None]
    unit = np.where(lengths > 0, values / np.where(lengths > 0, lengths, 1.0), 0.0)
    if kernel == "linear":
        key_lengths = norms(keys)[..., None]
        unit_keys = np.where(key_lengths > 0, keys / np.where(key_lengths > 0, key_lengths, 1.0), 0.0)
    width = 2.0 * math.sqrt(keys.shape[-1])

    def pairs(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Floats:
        total = np.zeros((len(rows), len(cols)))
        for head in range(keys.shape[0]):
            for c, j in enumerate(cols):
                if kernel == "linear":
                    factor = np.sum(unit_keys[head, rows] * unit_keys[head, j], axis=-1)
                else:
                    factor = np.exp(-np.sum((keys[head, rows] - keys[head, j]) ** 2, axis=-1) / width)
                total[:, c] += (factor * np.sum(unit[head, rows] * unit[head, j], axis=-1)) ** 2
        return total / keys.shape[0]

    return pairs


def select_tokens(queries: Floats, keys: Floats, values: Floats, count: int, **pcmmr: float) -> Floats:
    """Run the paper's whole method, with its defaults: ascending positions of the tokens to keep."""
    scores = log_magnitude(queries, keys, values)
    return np.sort(np.asarray(pc_mmr(scores, lazy_duplication(keys, values), count, **pcmmr)))  # type: ignore[arg-type]


def features(x: Floats, kernel: str = "exponential", degree: int = 48) -> Floats:
    """Write out the feature map phi (N, m): the identity, or Taylor monomials of the exponential kernel.

    exp(x.y / sqrt(D)) is the sum over n of (x.y)^n / (D^(n/2) n!), and (x.y)^n the sum over monomials of degree n
    weighted by multinomial coefficients. For lengths up to 4 and D <= 3, degree 48 is exact to rounding.
    """
    if kernel == "linear":
        return x
    width = x.shape[-1]
    columns = []
    for powers in _multi_indices(width, degree):
        total = sum(powers)
        # n! of the series cancels with the numerator of the multinomial coefficient n! / (p1! ... pD!).
        weight = 1.0 / (width ** (total / 2) * math.prod(math.factorial(p) for p in powers))
        columns.append(math.sqrt(weight) * np.prod(x ** np.asarray(powers), axis=-1))
    return np.stack(columns, axis=-1)


def _multi_indices(width: int, degree: int) -> Sequence[tuple[int, ...]]:
    grid = itertools.product(range(degree + 1), repeat=width)
    return [powers for powers in grid if sum(powers) <= degree]


def update_operators(keys: Floats, values: Floats, kernel: str = "exponential") -> Floats:
    """Every token's rank-one update phi(k)^T v of one head, entry by entry: (N, m, Dv)."""
    return features(keys, kernel)[:, :, None] * values[:, None, :]

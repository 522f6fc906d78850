"""Hypothesis generators: heads of tokens as attention has them, and tables of scores full of ties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Keys (H, N, D), values (H, N, Dv), queries (Hq, D) and hidden states (N, E) of one sample."""

    keys: Floats
    values: Floats
    queries: Floats
    hidden: Floats

    @property
    def count(self) -> int:
        """Number of tokens, N."""
        return int(self.keys.shape[-2])

    def at(self, order: NDArray[np.intp]) -> Tokens:
        """Return the same sample with its tokens in another order."""
        return replace(self, keys=self.keys[:, order], values=self.values[:, order], hidden=self.hidden[order])

    def rounded(self, dtype: str, read: Any) -> Tokens:
        """Return the sample as a narrower dtype holds it, back in float64."""
        return Tokens(**{name: read(x, dtype).astype(np.float64) for name, x in vars(self).items()})


def sample(
    seed: int,
    *,
    tokens: int = 12,
    heads: int = 2,
    group: int = 2,
    width: int = 4,
    value_width: int = 3,
    clusters: int | None = None,
    key_bias: float = 0.0,
    query_bias: float = 0.0,
    noise: float = 0.3,
    spread: float = 1.0,
) -> Tokens:
    """Draw one sample from a seed: independent tokens, or noisy copies of a few cluster centres.

    `key_bias` is the length of a constant vector in every key of a head, as trained models have it, `query_bias` the
    part of the queries along it, which lifts all logits; `spread` scales keys and queries. No two tokens tie
    except with probability zero.
    """
    rng = np.random.default_rng(seed)
    centres = tokens if clusters is None else clusters
    member = np.arange(tokens) if clusters is None else rng.integers(clusters, size=tokens)

    def cloud(*shape: int) -> Floats:
        middle = rng.normal(size=(*shape[:-1], centres, shape[-1]))[..., member, :]
        return np.asarray(middle + (0.0 if clusters is None else noise) * rng.normal(size=middle.shape))

    keys = spread * cloud(heads, width)
    bias = rng.normal(size=(heads, 1, width))
    direction = bias / np.linalg.norm(bias, axis=-1, keepdims=True)
    queries = spread * rng.normal(size=(heads, group, width)) + query_bias * direction
    lengths = np.exp(0.5 * rng.normal(size=(1, tokens, 1)))
    return Tokens(
        keys=keys + key_bias * direction,
        values=lengths * cloud(heads, value_width),
        queries=queries.reshape(heads * group, width),
        hidden=cloud(width + value_width),
    )


def shaped(*shape: int) -> Floats:
    """Fill a shape with ordinary numbers."""
    return np.random.default_rng(0).normal(size=shape)


def spoiled(value: float, *shape: int) -> Floats:
    """Fill a shape with ordinary numbers but for one in the middle."""
    array = shaped(*shape)
    array.flat[array.size // 2] = value
    return array


def samples(max_tokens: int = 24) -> st.SearchStrategy[Tokens]:
    """Generate small samples of every shape, clustered or not, key bias or not; ties have probability zero."""
    return st.builds(
        sample,
        st.integers(0, 2**32 - 1),
        tokens=st.integers(1, max_tokens),
        heads=st.integers(1, 3),
        group=st.integers(1, 3),
        width=st.integers(1, 8),
        value_width=st.integers(1, 6),
        clusters=st.none() | st.integers(1, 4),
        key_bias=st.sampled_from([0.0, 0.0, 3.0]),
    )


def fixed_samples(tokens: int = 12) -> st.SearchStrategy[Tokens]:
    """Generate samples of one shape only, for libraries that compile every shape anew."""
    return st.builds(sample, st.integers(0, 2**32 - 1), tokens=st.just(tokens), clusters=st.none() | st.just(3))


# Few values, so that ties are the rule; 0 is the score -inf, and 0.2 makes 1 - 5 s exactly 0.
MAGNITUDES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
DUPLICATIONS = (0.0, 0.04, 0.125, 0.19, 0.2, 0.25, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Scores (N,) in [0, 1], duplications (N, N) in [0, 1], and how many of the N to keep."""

    scores: Floats
    table: Floats
    count: int

    @property
    def log_scores(self) -> Floats:
        """The scores as the Strategy protocol takes them, -inf for zero."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.scores))


@st.composite
def pools(draw: st.DrawFn, min_tokens: int = 1, max_tokens: int = 20) -> Pool:
    """Draw candidate pools in which equal scores and equal duplications abound."""
    count = draw(st.integers(min_tokens, max_tokens))
    choice = st.sampled_from(MAGNITUDES) | st.floats(0.0, 1.0)
    scores = np.asarray(draw(st.lists(choice, min_size=count, max_size=count)))
    seed = draw(st.integers(0, 2**32 - 1))
    levels = draw(st.integers(1, len(DUPLICATIONS)))
    rng = np.random.default_rng(seed)
    half = np.triu(rng.choice(DUPLICATIONS[:levels] if rng.random() < 0.5 else DUPLICATIONS[-levels:], (count, count)))
    table = np.maximum(half, half.T)
    np.fill_diagonal(table, 1.0)
    return Pool(scores=scores, table=table, count=draw(st.integers(1, count)))


def pcmmr_options() -> st.SearchStrategy[dict[str, Any]]:
    """Generate every option of PC-MMR, its defaults among them."""
    return st.fixed_dictionaries(
        {},
        optional={
            "chunk": st.integers(1, 7),
            "growth": st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0, 10.0]),
            "penalty": st.sampled_from([0.0, 0.5, 1.0, 5.0, 20.0]),
            "floor": st.sampled_from([0.0, 0.001, 0.01, 0.3, 1.0]),
            "exponent": st.sampled_from([1, 2]),
            "temper": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        },
    )

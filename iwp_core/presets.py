"""Settings that belong together, to be unpacked into `select_tokens`.

The paper's default is what `select_tokens` does without a preset.

Examples
--------
>>> import numpy as np
>>> from iwp_core import select_tokens
>>> from iwp_core.presets import PER_QUERY
>>> rng = np.random.default_rng(0)
>>> keys, values, queries = rng.normal(size=(2, 50, 8)), rng.normal(size=(2, 50, 8)), rng.normal(size=(4, 12, 8))
>>> select_tokens(keys, values, queries, 0.111, **PER_QUERY).shape  # 12 queries a head
(6,)
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from iwp_core.above_chance import AboveChance
from iwp_core.strategies import PCMMR

__all__ = ["ABOVE_CHANCE", "PER_QUERY", "PRESETS", "preset_named"]

PER_QUERY: Mapping[str, Any] = MappingProxyType({
    "heads": "softmax_mean_per_query",
    "strategy": PCMMR(chunk=1, growth=1.1, penalty=1.0, exponent=1, temper=0.25),
})
"""Ours. Queries are scored separately; small chunks keep near-duplicates from being chosen together.

- ``heads="softmax_mean_per_query"``: each query of each head scores tokens by its own softmax weights. If queries were
  averaged, words that ask for different things would cancel each other. If raw kernel values were averaged, one head
  with large logits would decide alone, since they grow exponentially. Give `select_tokens` all T queries with their
  rotary embedding, and leave `magnitude_keys` away: only the mean of several queries has no position of its own.
- ``chunk=1, growth=1.1``: tokens of one chunk are not compared with each other. If chunks double, the last one may hold
  half of all kept tokens; with a growth of 1.1 it holds about a tenth. 809 tokens still take only 47 chunks.
- ``penalty=1.0, exponent=1``: a chunk multiplies scores by 1 - S, where S is the root mean square of the similarity
  over heads. The factor falls evenly from 1, for a token unlike the chunk, to 0 for a copy. The paper's factor,
  1 - 5 S squared, reaches its floor at S = 0.45 already, so that all more similar tokens are penalised alike.
- ``temper=0.25``: the fourth root of the magnitude is used. So a token with a hundredth of the largest magnitude is
  preferred to the one with the largest if that one's similarity to a chosen token is above 0.68.

It takes one pass over the keys for each query, and more chunks. ``benchmarks/README.md`` says what it gains.
"""

ABOVE_CHANCE: Mapping[str, Any] = MappingProxyType({
    **PER_QUERY,
    "similarity": "hidden",
    "strategy": AboveChance(strategy=replace(PER_QUERY["strategy"], temper=1.0)),
})
"""Ours. As `PER_QUERY`, but duplication is that of hidden states, as far as it is above chance.

- ``similarity="hidden"``: the cosine of hidden states, which say what a token is about before any layer's projections.
  Give `select_tokens` the hidden states as `hidden`.
- `AboveChance`: hidden states of a model have much in common, so a cosine counts only as far as it exceeds that of an
  average pair of candidates. Then no ``temper`` is needed: copies are penalised fully, and different tokens not at all.

Where `PER_QUERY` is good it is about as good, and it is much better in layers whose keys and values do not tell yet
what the question reads. It costs a product of hidden states for each chunk. No backend has kernels for a GPU for it,
and it cannot be captured in a CUDA graph. ``docs/pooling.md`` has the figures.
"""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "per-query": MappingProxyType({**PER_QUERY, "rope_in_magnitude": True}),
    "above-chance": MappingProxyType({**ABOVE_CHANCE, "rope_in_magnitude": True}),
})
"""Presets by name, for code that prunes a model and so has keys with and without their rotary embedding.

Each holds options of `select_tokens` and `rope_in_magnitude`: whether the magnitude reads queries and keys with their
rotary embedding, as the attention does, or without.
"""


def preset_named(name: object) -> Mapping[str, Any]:
    """Return the settings of a preset.

    Parameters
    ----------
    name : str
        One of `PRESETS`.

    Returns
    -------
    mapping
        Options of `select_tokens`, and `rope_in_magnitude`.

    Raises
    ------
    ValueError
        If there is no preset of that name; the message lists all.

    Examples
    --------
    >>> preset_named("per-query")["heads"]
    'softmax_mean_per_query'
    """
    if not isinstance(name, str) or name not in PRESETS:
        msg = f"`preset` is {name!r}, expected one of {', '.join(PRESETS)}"
        raise ValueError(msg)
    return PRESETS[name]

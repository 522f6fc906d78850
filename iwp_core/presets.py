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
from types import MappingProxyType
from typing import Any

from iwp_core.strategies import PCMMR

__all__ = ["PER_QUERY"]

PER_QUERY: Mapping[str, Any] = MappingProxyType({
    "heads": "softmax_mean_per_query",
    "strategy": PCMMR(chunk=1, growth=1.1, penalty=1.0, exponent=1, temper=0.25),
})
"""Ours. Every query asks for itself, and no chosen token hides a duplicate of another.

- ``heads="softmax_mean_per_query"``: what pruning takes from the output is, query by query and head by head, the
  attention on the dropped tokens times their values. Queries that ask for different things cancel in their mean, and
  kernel values grow exponentially with logits, so that one head decides for all; shares of each query and head do
  neither. Give `select_tokens` all T queries, and leave `magnitude_keys` away: single queries keep their rotary
  embedding, which their mean could not.
- ``chunk=1, growth=1.1``: tokens of one chunk are chosen without regard to each other. Of chunks that double the last
  one may hold half of all that is kept; of these it holds about a tenth, and 809 tokens still take only 47 chunks.
- ``penalty=1.0, exponent=1``: the factor of a chunk is 1 - S, S the root mean square of the similarity over heads. It
  falls evenly from new to copied, where 1 - 5 S squared reaches the floor at S = 0.45 and tells a half from a copy no
  more.
- ``temper=0.25``: the fourth root of the magnitude, so that a token of a hundredth of the largest magnitude outlasts
  one of the largest whose similarity to a chosen one is above 0.68.

It costs a pass over the keys for each query, and more chunks. ``benchmarks/README.md`` says what it brings.
"""

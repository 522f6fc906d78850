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
"""Ours. Queries are scored separately; small chunks keep near-duplicates from being chosen together.

- ``heads="softmax_mean_per_query"``: for each query and head, pruning changes the output by the attention on the
  dropped tokens times their values. In a mean query, words that ask for different things cancel; and since kernel
  values grow exponentially with logits, one head would decide for all. Softmax shares of each query and head avoid
  both. Give `select_tokens` all T queries, and leave `magnitude_keys` away: single queries keep their rotary embedding,
  which their mean could not.
- ``chunk=1, growth=1.1``: tokens of one chunk are not compared with each other. If chunks double, the last one may hold
  half of all that is kept; with a growth of 1.1 it holds about a tenth, and 809 tokens still take only 47 chunks.
- ``penalty=1.0, exponent=1``: a chunk multiplies scores by 1 - S, where S is the root mean square of the similarity
  over heads. This falls evenly from a new token to a copy. The paper's 1 - 5 S squared reaches its floor at S = 0.45,
  and marks down everything above alike.
- ``temper=0.25``: the fourth root of the magnitude. A token with a hundredth of the largest magnitude is then preferred
  to one with the largest whose similarity to a chosen token is above 0.68.

It costs a pass over the keys for each query, and more chunks. ``benchmarks/README.md`` says what it brings.
"""

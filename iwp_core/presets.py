"""Settings that belong together, to be unpacked into `select_tokens` or into a hook that takes the same options.

The paper's default is what these functions do without a preset.

Examples
--------
>>> import numpy as np
>>> from iwp_core import select_tokens
>>> from iwp_core.presets import BALANCED
>>> rng = np.random.default_rng(0)
>>> keys, values, queries = rng.normal(size=(2, 50, 8)), rng.normal(size=(2, 50, 8)), rng.normal(size=(4, 8))
>>> select_tokens(keys, values, queries, 0.111, **BALANCED).shape
(6,)
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from iwp_core.strategies import PCMMR

__all__ = ["BALANCED"]

BALANCED: Mapping[str, Any] = MappingProxyType({
    "strategy": PCMMR(penalty=1.0, exponent=1, temper=0.5),
    "heads": "softmax_mean",
})
"""Ours. Heads count alike, and duplication counts for more.

- ``heads="softmax_mean"``: a head's scores are divided by their sum before heads are averaged. Kernel values grow
  exponentially with logits, so in the plain mean the one head with the largest logits decides alone.
- ``temper=0.5``: the square root of the magnitude. A token of a hundredth of the largest magnitude then outlasts a
  duplicate of it; with the magnitude itself it would not before the floor is reached.
- ``exponent=1, penalty=1.0``: the factor of a chunk is 1 - S, S the root mean square of the similarity over heads. It
  falls evenly from new to copied, where 1 - 5 S squared reaches the floor at S = 0.45: beyond that, nothing tells a
  half from a copy.
"""

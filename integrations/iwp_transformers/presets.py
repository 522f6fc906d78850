"""Settings that belong together, to be unpacked into `prune_visual_tokens`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from iwp_core import presets

__all__ = ["PER_QUERY"]

PER_QUERY: Mapping[str, Any] = MappingProxyType({**presets.PER_QUERY, "rope_in_magnitude": True})
"""`iwp_core.presets.PER_QUERY`, with queries and keys compared as the attention does, rotary embedding included.

Examples
--------
>>> with prune_visual_tokens(model, budget=0.111, **PER_QUERY) as session:  # doctest: +SKIP
...     output = model.generate(**inputs)
"""

"""Settings that belong together, to be unpacked into `prune_visual_tokens`."""

from collections.abc import Mapping
from typing import Any

from iwp_core import presets
from iwp_core.presets import preset_named

__all__ = ["ABOVE_CHANCE", "PER_QUERY", "PRESETS", "preset_named"]

PRESETS: Mapping[str, Mapping[str, Any]] = presets.PRESETS
"""The presets by their names on the command line, in lmms-eval, in vLLM and in files of settings."""

PER_QUERY: Mapping[str, Any] = PRESETS["per-query"]
"""`iwp_core.presets.PER_QUERY`, with queries and keys compared as the attention does, rotary embedding included.

Examples
--------
>>> with prune_visual_tokens(model, budget=0.111, **PER_QUERY) as session:  # doctest: +SKIP
...     output = model.generate(**inputs)
"""

ABOVE_CHANCE: Mapping[str, Any] = PRESETS["above-chance"]
"""`iwp_core.presets.ABOVE_CHANCE`, with queries and keys compared as the attention does, rotary embedding included.

Examples
--------
>>> with prune_visual_tokens(model, budget=0.111, layer=1, **ABOVE_CHANCE) as session:  # doctest: +SKIP
...     output = model.generate(**inputs)
"""

"""Settings that belong together, to be unpacked into `prune_visual_tokens`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from iwp_core import presets

__all__ = ["PER_QUERY", "PRESETS", "preset_named"]

PER_QUERY: Mapping[str, Any] = MappingProxyType({**presets.PER_QUERY, "rope_in_magnitude": True})
"""`iwp_core.presets.PER_QUERY`, with queries and keys compared as the attention does, rotary embedding included.

Examples
--------
>>> with prune_visual_tokens(model, budget=0.111, **PER_QUERY) as session:  # doctest: +SKIP
...     output = model.generate(**inputs)
"""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"per-query": PER_QUERY})
"""The presets by their names on the command line and in files of settings."""


def preset_named(name: object) -> Mapping[str, Any]:
    """Return the arguments of a preset.

    Parameters
    ----------
    name : object
        As somebody gave it.

    Raises
    ------
    ValueError
        If it is the name of no preset.
    """
    if not isinstance(name, str) or name not in PRESETS:
        msg = f"`preset` is {name!r}, expected one of {', '.join(PRESETS)}"
        raise ValueError(msg)
    return PRESETS[name]

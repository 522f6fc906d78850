"""Rules made of a preset, of the core or of the integration: asked about on pictures and on text alike."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

__all__ = ["maximum", "untempered"]


def maximum(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset that pools by the maximum over heads and queries."""
    return {**preset, "heads": "max"}


def untempered(preset: Mapping[str, Any]) -> Any:
    """Return a preset's strategy without `temper`."""
    return replace(preset["strategy"], temper=1.0)

"""Rules made of the per-query preset, of the core or of the integration: asked about on pictures and on text alike."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from iwp_core.above_chance import AboveChance

__all__ = ["above_chance", "maximum", "untempered"]


def maximum(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset that pools by the maximum over heads and queries."""
    return {**preset, "heads": "max"}


def untempered(preset: Mapping[str, Any]) -> Any:
    """Return a preset's strategy without `temper`."""
    return replace(preset["strategy"], temper=1.0)


def above_chance(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same with duplication of hidden states, as far as it is above chance, and without `temper`."""
    return {**maximum(preset), "similarity": "hidden", "strategy": AboveChance(strategy=untempered(preset))}

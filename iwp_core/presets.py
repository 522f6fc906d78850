"""Settings that belong together, to be unpacked into `select_tokens` or into a hook that takes the same options."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from iwp_core.strategies import PCMMR

__all__ = ["BALANCED"]

BALANCED: Mapping[str, Any] = MappingProxyType({
    "strategy": PCMMR(penalty=1.0, exponent=1, temper=0.5),
    "heads": "softmax_mean",
})

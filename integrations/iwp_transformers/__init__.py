"""Visual-token pruning on stock Transformers models, with one `with` line.

Shape letters: `B` batch, `T` tokens of the padded input, `Q` new tokens, `E` width of the hidden states, `Hq` query
heads, `H` key/value heads, `D` head width, `N` visual tokens of a sample, `M` rows kept.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iwp_transformers.benchmark import BenchReport, Measurements, bench
    from iwp_transformers.families import family_of, supported_models
    from iwp_transformers.inspection import ModelReport, inspect_model
    from iwp_transformers.picture import kept_tokens_figure
    from iwp_transformers.record import PrefillSummary, PruningRecord, StageRecord
    from iwp_transformers.session import PruningSession, prune_visual_tokens
    from iwp_transformers.settings_files import load_settings
    from iwp_transformers.token_view import TokenView
    from iwp_transformers.tuning.drawing import tune_figure
    from iwp_transformers.tuning.report import TuneReport
    from iwp_transformers.tuning.search import tune
    from iwp_transformers.view import LayerView

__all__ = [
    "BenchReport",
    "LayerView",
    "Measurements",
    "ModelReport",
    "PrefillSummary",
    "PruningRecord",
    "PruningSession",
    "StageRecord",
    "TokenView",
    "TuneReport",
    "bench",
    "family_of",
    "inspect_model",
    "kept_tokens_figure",
    "load_settings",
    "prune_visual_tokens",
    "supported_models",
    "tune",
    "tune_figure",
]

# Imported when first asked for, so that the command line can say which package is missing instead of failing on it.
_HOMES = {
    "LayerView": "view",
    "TokenView": "token_view",
    "BenchReport": "benchmark",
    "Measurements": "benchmark",
    "ModelReport": "inspection",
    "bench": "benchmark",
    "family_of": "families",
    "inspect_model": "inspection",
    "kept_tokens_figure": "picture",
    "supported_models": "families",
    "PrefillSummary": "record",
    "PruningRecord": "record",
    "StageRecord": "record",
    "PruningSession": "session",
    "prune_visual_tokens": "session",
    "load_settings": "settings_files",
    "TuneReport": "tuning.report",
    "tune": "tuning.search",
    "tune_figure": "tuning.drawing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

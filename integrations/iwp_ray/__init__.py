"""Answers for whole data sets with pruned models, on Ray Data.

A row has an id, an image or a video, and a prompt. Its answer is a row with the same id.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iwp_ray.dataset import prune_dataset
    from iwp_ray.mapping import MapReport, prune_to_parquet

__all__ = ["MapReport", "prune_dataset", "prune_to_parquet"]

# Imported when first asked for, so that the command line can say which package is missing instead of failing on it.
_HOMES = {"MapReport": "mapping", "prune_dataset": "dataset", "prune_to_parquet": "mapping"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

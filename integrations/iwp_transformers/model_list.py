"""Which classes of models were tested, how, and with what result: the data of `docs/models.md`, within the package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["LIST", "ListedModel", "listed_models", "listed_version"]

LIST = Path(__file__).with_name("model_list.json")
"""Written by the tests of all classes, which also hold it to what they find."""


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """What was found of one class of `AutoModelForImageTextToText`.

    Attributes
    ----------
    model_type : str
        As in the model's `config.json`.
    model : str
        Name of the class.
    outcome : str
        "exact", "refused", or "cannot be built tiny", by which it was not judged.
    tested : str
        With which weights: "trained miniature", or "tiny and random"; empty where it was not judged.
    reason : str
        Why it is not exact; empty if it is.
    layers, static_cache, paper_rule, pictures : str
        Of exact classes: layers of the tiny model's four that can prune, whether decoding on a static cache is exact,
        whether the paper's rule reads what attention receives, and where kept tokens can be drawn.
    """

    model_type: str
    model: str
    outcome: str
    tested: str = ""
    reason: str = ""
    layers: str = ""
    static_cache: str = ""
    paper_rule: str = ""
    pictures: str = ""


def listed_models() -> tuple[ListedModel, ...]:
    """Return all classes that were tested, by their model type.

    Returns
    -------
    tuple of ListedModel

    Examples
    --------
    >>> next(each.tested for each in listed_models() if each.model_type == "qwen2_5_vl")
    'trained miniature'
    """
    return tuple(ListedModel(**entry) for entry in _content()["models"])


def listed_version() -> str:
    """Return the version of Transformers whose classes are listed."""
    version: str = _content()["transformers"]
    return version


@cache
def _content() -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(LIST.read_text(encoding="utf-8"))
    return content

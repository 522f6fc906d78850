"""Measure the cells of tables, going on where an earlier run stopped; imports lmms-eval when it measures."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import transformers
from torch import nn
from transformers import AutoConfig

from iwp_lmms_eval.cells import Cell
from iwp_lmms_eval.results import Results
from iwp_miniature.miniature import miniature_folder
from iwp_transformers import prune_visual_tokens
from iwp_transformers.inspection import without_weights

__all__ = ["TESTED", "Failure", "missing_packages", "model_trouble", "reproduce"]

TESTED = "0.7.3"
"""The version of lmms-eval that this was tested with."""

# By import name: what an evaluation needs beside iwp itself, see docs/evaluation.md.
NEEDED = (
    "lmms_eval",
    "accelerate",
    "datasets",
    "evaluate",
    "loguru",
    "cv2",
    "pytablewriter",
    "pytz",
    "sacrebleu",
    "tenacity",
)

Measure = Callable[[Cell], tuple[Mapping[str, float], Mapping[str, Any]]]


@dataclass(frozen=True)
class Failure:
    """A cell that could not be measured, and why."""

    cell: Cell
    reason: str


def missing_packages() -> list[str]:
    """Return which packages are missing that evaluating needs, by the names under which they are imported."""
    return [name for name in NEEDED if find_spec(name) is None]


def model_trouble(cells: Iterable[Cell]) -> dict[str, str]:
    """Return why cells cannot be pruned as they ask, by their keys; reads configurations and no weights.

    Parameters
    ----------
    cells : iterable of Cell
    """
    trouble = {}
    for cell in cells:
        try:
            model = _outline(cell)
            if cell.pruning is not None:
                prune_visual_tokens(model, **cell.pruning).close()
        except (TypeError, ValueError, NotImplementedError, OSError) as error:
            trouble[cell.key] = f"{type(error).__name__}: {error}"
    return trouble


def reproduce(cells: Sequence[Cell], results: Results, measure: Measure, tell: Callable[[str], None]) -> list[Failure]:
    """Measure cells, each once.

    Parameters
    ----------
    cells : sequence of Cell
    results : Results
        What it holds is not measured again; each measurement is written there at once.
    measure : callable
        Takes a cell, returns its metrics and figures.
    tell : callable
        Takes a line about what happens.

    Returns
    -------
    list of Failure
        One for each cell that raised; the others were measured all the same.
    """
    failures = []
    for number, cell in enumerate(cells, start=1):
        where = f"{number} of {len(cells)}: {cell}"
        if results.metrics(cell) is not None:
            tell(f"{where}: measured before")
            continue
        tell(where)
        try:
            metrics, figures = measure(cell)
        except Exception as error:
            # A table of 200 evaluations is not lost for one that fails.
            failures.append(Failure(cell, f"{type(error).__name__}: {error}"))
            tell(f"{where}: failed: {failures[-1].reason}")
            continue
        results.add(cell, metrics, figures)
    return failures


def _outline(cell: Cell) -> nn.Module:
    """Return the model of a cell without its weights.

    Raises
    ------
    ValueError
        If Transformers has no such class, or the weights that were given are of another.
    """
    wanted = cell.model.class_name
    if not hasattr(transformers, wanted):
        msg = f"Transformers {transformers.__version__} has no class {wanted!r}"
        raise ValueError(msg)
    folder = cell.conduct.weights or (str(miniature_folder(cell.model.miniature)) if cell.model.miniature else "")
    outline = _outlined(folder, wanted, json.dumps(dict(cell.model.config)))
    if type(outline).__name__ != wanted:
        msg = f"{cell.pretrained!r} is a {type(outline).__name__}, expected a {wanted}"
        raise ValueError(msg)
    return outline


@cache
def _outlined(folder: str, wanted: str, config: str) -> nn.Module:
    if folder:
        return without_weights(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    kind: Any = getattr(transformers, wanted)
    return without_weights(kind.config_class(**json.loads(config)))

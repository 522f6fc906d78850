"""The measurement of one cell by lmms-eval; imports it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from iwp_lmms_eval.answering import Answerer
from iwp_lmms_eval.cells import Cell
from iwp_lmms_eval.digits import TASK, MiniatureEncoder, digits_task
from iwp_lmms_eval.evaluation import evaluate_task, task_trouble
from iwp_lmms_eval.journal import Journal
from iwp_lmms_eval.loading import load_answerer
from iwp_lmms_eval.model import AnsweringModel
from iwp_lmms_eval.versions import measured_versions
from iwp_miniature import KINDS, Example, architecture, draw_examples, load_miniature
from iwp_miniature.scenes import STYLES

__all__ = ["Measuring", "cell_trouble"]

# The questions that the project's own accuracies were measured on (benchmarks/bench_accuracy.py).
PER_KIND, SEED = 125, 1


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Measures cells.

    Attributes
    ----------
    folder : pathlib.Path
        For journals, and for what tasks write.
    batch_size : int
    device : str or None
        As `load_answerer`.
    device_map : str or None
        As `load_answerer`.
    """

    folder: Path
    batch_size: int = 1
    device: str | None = None
    device_map: str | None = None

    def __call__(self, cell: Cell) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """Return the metrics of a cell, and what it took."""
        settings = {**cell.identity(), "versions": measured_versions()}
        journal = Journal(self.folder / "journals" / f"{cell.key}.jsonl", settings)
        model = AnsweringModel(self._answerer(cell), batch_size=self.batch_size, journal=journal)
        limit = cell.conduct.limit
        task = digits_task(_examples(cell.model.miniature, limit)) if cell.task == TASK else cell.task
        measured = evaluate_task(model, task, folder=self.folder, limit=limit)
        return measured.metrics, measured.figures

    def _answerer(self, cell: Cell) -> Answerer:
        if cell.model.miniature:
            miniature = load_miniature(cell.model.miniature)
            miniature.model.set_attn_implementation(cell.attention or "sdpa")
            return Answerer(miniature.model, MiniatureEncoder(miniature), cell.pruning)
        return load_answerer(
            cell.pretrained,
            cell.pruning,
            device=self.device,
            device_map=self.device_map,
            dtype=cell.conduct.dtype,
            attn_implementation=cell.attention,
            **cell.model.arguments,
        )


def cell_trouble(cells: list[Cell]) -> dict[str, str]:
    """Return why tasks of cells cannot be evaluated, by the cells' keys; nothing is downloaded."""
    names = list(dict.fromkeys(cell.task for cell in cells if cell.task != TASK))
    trouble = task_trouble(names)
    return {cell.key: trouble[cell.task] for cell in cells if cell.task in trouble}


@cache
def _examples(miniature: str, limit: int | None) -> list[Example]:
    per_kind = PER_KIND if limit is None else min(PER_KIND, ceil(limit / len(KINDS) / len(STYLES)))
    return draw_examples(architecture(miniature), split="test", per_kind=per_kind, seed=SEED)

"""One task of lmms-eval, evaluated once; imports lmms-eval."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from loguru import logger

from iwp_lmms_eval import MODEL
from iwp_lmms_eval.model import AnsweringModel

__all__ = ["Measurement", "evaluate_task", "task_trouble"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What an evaluation has found.

    Attributes
    ----------
    metrics : dict of str to float
        All that the task reports in numbers, by its own names without the filter behind their comma.
    figures : dict
        What it took, see `Figures`.
    """

    metrics: dict[str, float]
    figures: dict[str, Any]


def evaluate_task(model: AnsweringModel, task: Any, *, folder: Path, limit: int | None = None) -> Measurement:
    """Evaluate a task.

    Parameters
    ----------
    model : AnsweringModel
        Its weights are released.
    task : str or lmms_eval.api.task.Task
    folder : pathlib.Path
        Where the task may write what it calls submissions.
    limit : int, optional
        Questions asked, from the first on; default all.

    Raises
    ------
    SampleError
        If a question cannot be answered.
    ValueError
        If the task reports a metric twice, under two filters.
    """
    _only_warnings()
    results = simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=_tasks(),
        batch_size=model.batch_size,
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
        # What lmms-eval's own command line has where nothing else is said.
        cli_args=Namespace(
            output_path=str(folder), process_with_media=False, reasoning_tags=None, agentic_trace_mode="basic"
        ),
    )
    (reported,) = results["results"].values()
    return Measurement(metrics=_metrics(reported), figures=model.figures.to_dict())


def task_trouble(names: Sequence[str]) -> dict[str, str]:
    """Return why tasks cannot be evaluated, by their names; nothing is downloaded.

    Parameters
    ----------
    names : sequence of str
        Tasks of lmms-eval. One that is there is resolved with all functions that it names.
    """
    _only_warnings()
    trouble = {}
    for name in names:
        if name not in _tasks().all_tasks:
            trouble[name] = f"lmms-eval has no task {name!r}"
            continue
        try:
            kind = _tasks()._get_config(name).get("output_type", "generate_until")
        except Exception as error:
            # What a task imports, or reads on import, fails in any way.
            trouble[name] = f"task {name!r} cannot be loaded: {type(error).__name__}: {error}"
            continue
        if kind != "generate_until":
            trouble[name] = f"task {name!r} is of type {kind!r}, expected generate_until"
    return trouble


@cache
def _tasks() -> TaskManager:
    # Some tasks read the variable itself, which need not be set.
    os.environ.setdefault("HF_HOME", HF_HOME)
    return TaskManager(model_name=MODEL)


@cache
def _only_warnings() -> None:
    # Of each evaluation lmms-eval tells some twenty lines, none of which a table needs.
    logger.remove()
    logger.add(sys.stderr, level="WARNING")


def _metrics(reported: dict[str, Any]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in reported.items():
        name = key.split(",")[0]
        if isinstance(value, bool) or not isinstance(value, int | float) or "_stderr" in name:
            continue
        if name in numbers:
            msg = f"the task reports {name!r} under several filters, expected one"
            raise ValueError(msg)
        numbers[name] = float(value)
    return numbers

"""Measurements on disk, cell by cell, and their comparison with what was published."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iwp_lmms_eval.cells import Cell, Conduct, Part
from iwp_lmms_eval.paper_tables import Benchmark, Row, relative_average

__all__ = ["AVERAGE", "Comparison", "Results", "compared"]

AVERAGE = "relative average"


class Results:
    """A file of measurements, written anew after each.

    Parameters
    ----------
    path : pathlib.Path
        Made with the first measurement.
    versions : mapping of str to str
        Of what the measurements depend on.

    Raises
    ------
    ValueError
        If the file is none of these, or was written by other versions.
    """

    def __init__(self, path: Path, versions: Mapping[str, str]) -> None:
        self._path, self._versions = path, dict(versions)
        self._cells: dict[str, dict[str, Any]] = {}
        self._tables: list[dict[str, Any]] = []
        if path.exists():
            content = self._content()
            if content["versions"] != self._versions:
                msg = (
                    f"{str(path)!r} was measured with {_named(content['versions'])}, and this is"
                    f" {_named(self._versions)}: choose another folder, since scores of several versions do not compare"
                )
                raise ValueError(msg)
            self._cells = content["cells"]

    def metrics(self, cell: Cell) -> Mapping[str, float] | None:
        """Return what was measured; None if it was not yet."""
        found = self._cells.get(cell.key)
        return None if found is None else found["metrics"]

    def add(self, cell: Cell, metrics: Mapping[str, float], figures: Mapping[str, Any]) -> None:
        """Hold a measurement, and write the file."""
        self._cells[cell.key] = {**cell.identity(), "metrics": dict(metrics), "figures": dict(figures)}
        self._write()

    def conclude(self, comparisons: Iterable["Comparison"]) -> None:
        """Write down what is compared, beside the measurements."""
        self._tables = [asdict(each) for each in comparisons]
        self._write()

    def _content(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            if not {"versions", "cells"} <= set(content):
                msg = "it has no versions and cells"
                raise ValueError(msg)
        except (TypeError, ValueError, RecursionError) as error:
            msg = f"{str(self._path)!r} holds no measurements ({error}): choose another folder"
            raise ValueError(msg) from error
        return content

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = {"versions": self._versions, "cells": self._cells, "comparisons": self._tables}
        beside = self._path.with_suffix(".part")
        beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        # Whoever kills the run meets the old file or the new one.
        os.replace(beside, self._path)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the report.

    Attributes
    ----------
    table : str
    row : str
        Name of the method.
    budget : object
        As the table has it.
    benchmark : str
        Or `AVERAGE`.
    published : float
        As printed. The relative average of a part of the benchmarks is that of the scores printed for them.
    measured : float or None
        None if it was not measured.
    """

    table: str
    row: str
    budget: object
    benchmark: str
    published: float
    measured: float | None

    @property
    def difference(self) -> float | None:
        """Measured less published."""
        return None if self.measured is None else self.measured - self.published


def compared(part: Part, results: Results, conduct: Conduct) -> Iterator[Comparison]:
    """Yield a comparison for each row and benchmark of a part of a table, and the relative average of each row.

    Parameters
    ----------
    part : Part
    results : Results
    conduct : Conduct
        How the cells were measured.
    """
    columns = [part.table.benchmarks.index(each) for each in part.benchmarks]
    measured = [[_score(part, row, each, results, conduct) for each in part.benchmarks] for row in part.rows]
    for row, scores in zip(part.rows, measured, strict=True):
        published = [row.scores[column] for column in columns]
        for benchmark, printed, score in zip(part.benchmarks, published, scores, strict=True):
            yield _line(part, row, benchmark.name, printed, score)
        if row.settings is not None:
            base = [part.rows[0].scores[column] for column in columns]
            whole = len(columns) == len(part.table.benchmarks)
            printed = row.average if whole else relative_average(published, base)
            yield _line(part, row, AVERAGE, printed, _average(scores, measured[0]))


def _line(part: Part, row: Row, benchmark: str, published: float, measured: float | None) -> Comparison:
    return Comparison(
        table=part.table.name,
        row=row.label,
        budget=row.budget,
        benchmark=benchmark,
        published=published,
        measured=measured,
    )


def _score(part: Part, row: Row, benchmark: Benchmark, results: Results, conduct: Conduct) -> float | None:
    cell = Cell(model=part.table.model, settings=row.settings, task=benchmark.task, conduct=conduct)
    metrics = results.metrics(cell)
    # A limit can leave no question of a kind.
    if metrics is None or not set(benchmark.metrics) <= set(metrics):
        return None
    return benchmark.scale * sum(metrics[name] for name in benchmark.metrics)


def _average(scores: Sequence[float | None], full: Sequence[float | None]) -> float | None:
    pairs = [(score, base) for score, base in zip(scores, full, strict=True) if score is not None and base]
    if len(pairs) < len(scores):
        return None
    return relative_average(*zip(*pairs, strict=True))


def _named(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())

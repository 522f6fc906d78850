"""Reading what bench_accuracy.py measured of methods: rows at one place and budget, and what differs between them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accuracy_methods import PUBLISHED, cell_key
from accuracy_results import answered
from answers import paired_difference
from numpy.typing import NDArray

from iwp_transformers.methods.random_tokens import Random

__all__ = ["RANDOM", "Cell", "cells_at", "difference", "from_key", "groups", "places"]

RANDOM = f"{Random.name} (three seeds)"

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One method, or several runs of one, at one place and budget.

    Parameters
    ----------
    name : str
    entries : sequence of mapping
        Of the result file, one for each run.
    right : ndarray of float, shape (questions,)
        Whether each question was answered right, or in what share of the runs.
    """

    name: str
    entries: Sequence[Mapping[str, Any]]
    right: NDArray[np.float64]

    def mean(self, figure: str) -> float:
        """Return a figure of the entries, averaged over the runs."""
        return float(np.mean([entry[figure] for entry in self.entries]))

    @property
    def error(self) -> float:
        """Standard error of the right answers, in points, over the questions."""
        return 100 * float(self.right.std(ddof=1)) / math.sqrt(len(self.right))

    @property
    def stages(self) -> str:
        """Where it drops, and what share of the visual tokens is left from there on, in words."""
        entry = self.entries[0]
        return ", ".join(f"{layer}: {entry['visual_by_layer'][layer]:.1%}" for layer in entry["layers"])


def from_key(key: str) -> tuple[str, str, str] | None:
    """Return row, place and budget of a cell's name; None of another name."""
    parts = key.split(" | ")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None  # noqa: PLR2004 - as `cell_key` writes


def places(result: Result) -> list[tuple[str, list[float]]]:
    """Return the places at which something was measured, each with its budgets, descending."""
    found: dict[str, set[float]] = {}
    for parts in filter(None, map(from_key, result["cells"])):
        found.setdefault(parts[1], set()).add(float(parts[2].rstrip("%")) / 100)
    return [(place, sorted(budgets, reverse=True)) for place, budgets in found.items()]


def groups(result: Result) -> dict[str, list[str]]:
    """Return the rows of a result by what they are shown as: random ones are one row."""
    found: dict[str, list[str]] = {}
    for parts in filter(None, map(from_key, result["cells"])):
        shown = RANDOM if parts[0].partition(",")[0] == Random.name else parts[0]
        runs = found.setdefault(shown, [])
        if parts[0] not in runs:
            runs.append(parts[0])
    return found


def cells_at(result: Result, place: str, budget: float) -> Iterator[Cell]:
    """Yield what was answered at one place and budget; what is not measured whole is left out."""
    questions = result["header"]["questions"]
    where: str | int = place if place == PUBLISHED else int(place.removeprefix("layer "))
    for name, runs in groups(result).items():
        entries = [result["cells"].get(cell_key(run, where, budget), {}) for run in runs]
        if all("right" in entry for entry in entries):
            right = np.mean([answered(entry, questions) for entry in entries], axis=0, dtype=np.float64)
            yield Cell(name, entries, right)


def difference(one: Cell, other: Cell) -> tuple[float, float]:
    """Return how many points more one answers than another, and the standard error, question by question."""
    return paired_difference(one.right, other.right)

"""What there is to measure for a table: a cell is a model, a way of pruning and a task."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iwp_lmms_eval.arguments import pruning_arguments, written
from iwp_lmms_eval.paper_tables import BASELINE, Benchmark, PaperModel, PaperTable, Row

__all__ = ["Cell", "Conduct", "Part", "cells_of", "parts_of"]

FLASH = "flash_attention_2"


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How everything is measured that answers may depend on.

    Attributes
    ----------
    weights : str or None
        Folder of the weights; None for the name that the table has.
    limit : int or None
        Questions of each task; None for all.
    dtype : str
        Number format of the weights.
    attention : str or None
        Attention implementation. Of a method that needs weights of attention, "sdpa" in place of FlashAttention.
    """

    weights: str | None = None
    limit: int | None = None
    dtype: str = "auto"
    attention: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """What of a table was asked for: its first row always, since shares are shares of it."""

    table: PaperTable
    rows: tuple[Row, ...]
    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One evaluation.

    Attributes
    ----------
    model : PaperModel
    settings : mapping or None
        As those of a `Row`.
    task : str
        Of lmms-eval.
    conduct : Conduct
    """

    model: PaperModel
    settings: Mapping[str, Any] | None
    task: str
    conduct: Conduct

    @property
    def pruning(self) -> dict[str, Any] | None:
        """Arguments of `prune_visual_tokens`; None keeps all tokens."""
        return None if self.settings is None else pruning_arguments(self.settings)

    @property
    def pretrained(self) -> str:
        """Where the model is from; of a miniature its name."""
        return self.conduct.weights or self.model.pretrained or self.model.miniature

    @property
    def attention(self) -> str | None:
        """Attention implementation."""
        asked, method = self.conduct.attention, (self.pruning or {}).get("method")
        return "sdpa" if asked == FLASH and not getattr(method, "flash", True) else asked

    def identity(self) -> dict[str, Any]:
        """Return all that the scores depend on, as JSON takes it: cells of two tables can be the same."""
        return {
            "pretrained": self.pretrained,
            "arguments": dict(self.model.arguments),
            "pruning": written(self.pruning, self.settings or {}),
            "task": self.task,
            "limit": self.conduct.limit,
            "dtype": self.conduct.dtype,
            "attention": self.attention,
        }

    @property
    def key(self) -> str:
        """A name made of the identity, for files."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """Return it in one line."""
        how = BASELINE if self.settings is None else ", ".join(f"{name}={each}" for name, each in self.settings.items())
        return f"{self.task}, {self.model.name}, {how}"


def parts_of(
    tables: Mapping[str, PaperTable],
    *,
    names: Sequence[str],
    methods: Sequence[str] = (),
    budgets: Sequence[float] = (),
    benchmarks: Sequence[str] = (),
) -> list[Part]:
    """Return what was asked for.

    Parameters
    ----------
    tables : mapping of str to PaperTable
    names : sequence of str
        Of tables.
    methods, budgets, benchmarks : sequences
        Which rows and columns; none of a kind means all. A benchmark can be named by its task.

    Raises
    ------
    ValueError
        If a table has no such name, or none of the tables such a row or column.
    """
    _check("table", names, tables)
    chosen = [tables[name] for name in dict.fromkeys(names)]
    pruned = [row for table in chosen for row in table.rows[1:]]
    columns = [each for table in chosen for each in table.benchmarks]
    _check("method", methods, [row.label for row in pruned])
    _check("budget", budgets, [row.budget for row in pruned])
    _check("task", benchmarks, [name for each in columns for name in (each.name, each.task)])
    parts = []
    for table in chosen:
        rows = [row for row in table.rows[1:] if row.label in (methods or [row.label])]
        rows = [row for row in rows if not budgets or row.budget in budgets]
        asked = [each for each in table.benchmarks if not benchmarks or {each.name, each.task} & set(benchmarks)]
        parts.append(Part(table=table, rows=(table.rows[0], *rows), benchmarks=tuple(asked)))
    return [part for part in parts if part.benchmarks and len(part.rows) > 1]


def cells_of(parts: Iterable[Part], conduct: Conduct) -> list[Cell]:
    """Return the cells of some parts, each once, those without pruning first."""
    every = [*_cells(parts, conduct)]
    distinct = {cell.key: cell for cell in every}
    return sorted(distinct.values(), key=lambda cell: cell.settings is not None)


def _cells(parts: Iterable[Part], conduct: Conduct) -> Iterator[Cell]:
    for part in parts:
        for row in part.rows:
            for task in dict.fromkeys(benchmark.task for benchmark in part.benchmarks):
                yield Cell(model=part.table.model, settings=row.settings, task=task, conduct=conduct)


def _check(name: str, asked: Sequence[object], known: Iterable[object]) -> None:
    allowed = list(dict.fromkeys(known))
    for each in asked:
        if each not in allowed:
            msg = f"`{name}` is {each!r}, expected one of {', '.join(map(str, allowed))}"
            raise ValueError(msg)

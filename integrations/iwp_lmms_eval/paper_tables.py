"""The papers' tables, from one file: models, benchmarks, settings and published scores."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["BASELINE", "Benchmark", "PaperModel", "PaperTable", "Row", "load_tables", "relative_average"]

BASELINE = "all tokens"
"""What the row without pruning is called."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a score is made of.

    Attributes
    ----------
    name : str
        As the paper has it.
    task : str
        Of lmms-eval.
    metrics : tuple of str
        Of the task; their sum counts.
    scale : float
        Factor from the sum to the paper's unit.
    note : str
        What a user has to know; empty if nothing.
    """

    name: str
    task: str
    metrics: tuple[str, ...]
    scale: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperModel:
    """A model that a table was measured on.

    Attributes
    ----------
    name : str
        In the file.
    class_name : str
        Of Transformers.
    pretrained : str
        Name on the Hub; empty for a miniature.
    miniature : str
        Which of those that are shipped; empty for others.
    config : mapping
        What pruning has to know of its configuration.
    arguments : mapping
        Of the model `iwp`, beside those that prune.
    """

    name: str
    class_name: str
    pretrained: str = ""
    miniature: str = ""
    config: Mapping[str, Any]
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of pruning with its published scores.

    Attributes
    ----------
    label : str
        Its name in the table.
    settings : mapping or None
        Arguments of the model `iwp` that prune; None keeps all tokens.
    scores : tuple of float
        One for each benchmark of the table.
    average : float
        Relative average as printed, in per cent.
    """

    label: str
    settings: Mapping[str, Any] | None
    scores: tuple[float, ...]
    average: float

    @property
    def budget(self) -> object:
        """What it keeps; 1.0 without pruning."""
        return 1.0 if self.settings is None else self.settings.get("budget")


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table.

    Attributes
    ----------
    name : str
        Its number, such as "4" or "E.1".
    title : str
    paper : str
        Number on arXiv, or where else the scores are from.
    model : PaperModel
    benchmarks : tuple of Benchmark
    rows : tuple of Row
        The first keeps all tokens.
    """

    name: str
    title: str
    paper: str
    model: PaperModel
    benchmarks: tuple[Benchmark, ...]
    rows: tuple[Row, ...]


def relative_average(scores: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the mean over benchmarks of a score as a share of that with all tokens, in per cent.

    Parameters
    ----------
    scores, baseline : sequence of float, of one length >= 1
        Of the same benchmarks, each in a unit of its own; the second above 0.

    References
    ----------
    arXiv 2604.00757, section 6.1 ("relative performance"), and the column "Avg. (%)" of its tables.

    Examples
    --------
    >>> relative_average([25.0, 1500.0], [50.0, 2000.0])
    62.5
    """
    shares = [score / full for score, full in zip(scores, baseline, strict=True)]
    return 100 * sum(shares) / len(shares)


def load_tables(path: Path | None = None) -> dict[str, PaperTable]:
    """Return tables by their names.

    Parameters
    ----------
    path : pathlib.Path, optional
        A file of this format. Default: the one that is shipped.

    Raises
    ------
    ValueError
        If the file is none, or a part of it names what it does not have.
    """
    text = (path or files("iwp_lmms_eval") / "paper_tables.toml").read_text(encoding="utf-8")
    try:
        content = tomllib.loads(text)
        tables = [_table(content, each) for each in content["tables"]]
    except (KeyError, TypeError, ValueError) as error:
        msg = f"the tables cannot be read: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    return {table.name: table for table in tables}


def _table(content: Mapping[str, Any], given: Mapping[str, Any]) -> PaperTable:
    names = content["benchmarks"][given["benchmarks"]]
    benchmarks = tuple(_benchmark(name, content["tasks"][name]) for name in names)
    full = Row(label=BASELINE, settings=None, scores=tuple(given["baseline"]), average=100.0)
    rows = (full, *(_row(content, given, row) for row in given["rows"]))
    for row in rows:
        if len(row.scores) != len(benchmarks):
            msg = f"row {row.label!r} of table {given['name']!r} has {len(row.scores)} scores for {len(benchmarks)}"
            raise ValueError(msg)
    return PaperTable(
        name=given["name"],
        title=given["title"],
        paper=given["paper"],
        model=_model(given["model"], content["models"][given["model"]]),
        benchmarks=benchmarks,
        rows=rows,
    )


def _benchmark(name: str, given: Mapping[str, Any]) -> Benchmark:
    return Benchmark(name=name, **{**given, "metrics": tuple(given["metrics"])})


def _model(name: str, given: Mapping[str, Any]) -> PaperModel:
    return PaperModel(
        name=name,
        class_name=given["class"],
        pretrained=given.get("pretrained", ""),
        miniature=given.get("miniature", ""),
        config=MappingProxyType(given.get("config", {})),
        arguments=MappingProxyType(given.get("arguments", {})),
    )


def _row(content: Mapping[str, Any], table: Mapping[str, Any], given: Mapping[str, Any]) -> Row:
    label = given["method"]
    settings = content["methods"].get(label, {}) | table.get("settings", {}) | given.get("settings", {})
    return Row(
        label=label, settings=MappingProxyType(settings), scores=tuple(given["scores"]), average=given["average"]
    )

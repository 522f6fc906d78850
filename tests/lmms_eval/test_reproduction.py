"""A reproduction measures what is asked, each cell once, keeps it, and compares it with what was published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iwp_lmms_eval.cells import Cell, Conduct, cells_of, parts_of
from iwp_lmms_eval.paper_tables import load_tables
from iwp_lmms_eval.reproduction import reproduce
from iwp_lmms_eval.results import AVERAGE, Results, compared

TABLES = load_tables()
VERSIONS = {"iwp": "1", "lmms-eval": "2"}
CONDUCT = Conduct()


class Killed(BaseException):
    """What ends a process that is stopped."""


class Measuring:
    """Stand-in for lmms-eval: gives every metric a score, remembers what it was asked, can be killed."""

    def __init__(self, *, killed_at: int | None = None, broken: str = "") -> None:
        self.asked: list[Cell] = []
        self._killed_at, self._broken = killed_at, broken

    def __call__(self, cell: Cell) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """Measure a cell."""
        if len(self.asked) == self._killed_at:
            raise Killed
        self.asked.append(cell)
        if cell.task == self._broken:
            msg = "document 7 cannot be answered"
            raise RuntimeError(msg)
        score = 0.8 if cell.settings is None else 0.6
        return {"pope_accuracy": score, "anls": score}, {"samples": 3}


def asked(**chosen: Any) -> list[Cell]:
    """Return the cells of a choice of table 4."""
    return cells_of(parts_of(TABLES, names=["4"], **chosen), CONDUCT)


def tell(_line: str) -> None:
    """Keep quiet."""


def test_a_choice_has_its_baseline() -> None:
    """Of one row and two benchmarks four evaluations are needed: shares are shares of all tokens."""
    cells = asked(methods=["IWP"], budgets=[0.111], benchmarks=["POPE", "docvqa_val"])

    assert [(cell.task, cell.settings is None) for cell in cells] == [
        ("docvqa_val", True),
        ("pope", True),
        ("docvqa_val", False),
        ("pope", False),
    ]


def test_what_two_tables_share_is_one_cell() -> None:
    """The paper's own setting stands eight times in tables 3, 4 and E.1 to E.5, and is measured once."""
    names = ["3", "4", "E.1", "E.2", "E.3", "E.5"]
    rows = [row for name in names for row in TABLES[name].rows if row.scores[1] == 85.3]
    cells = {Cell(model=TABLES["4"].model, settings=row.settings, task="pope", conduct=CONDUCT).key for row in rows}

    assert len(rows) == 8
    assert len(cells) == 1


def test_settings_of_different_rules_are_different_cells() -> None:
    """No two rows that were published with different scores are taken for one."""
    for name, table in TABLES.items():
        parts = parts_of(TABLES, names=[name])
        tasks = {each.task for each in table.benchmarks}
        # Of the options of PC-MMR the default is listed three times, with the same scores.
        distinct = {row.scores for row in table.rows}
        assert len(cells_of(parts, CONDUCT)) == len(distinct) * len(tasks), name


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"names": ["40"]}, "`table` is '40', expected one of 2, 3, 4"),
        ({"names": ["4"], "methods": ["Ours"]}, "`method` is 'Ours', expected one of FastV.*IWP"),
        ({"names": ["4"], "budgets": [0.5]}, "`budget` is 0.5, expected one of 0.353, 0.222, 0.111"),
        ({"names": ["4"], "benchmarks": ["vqav2"]}, "`task` is 'vqav2', expected one of AI2D, ai2d"),
    ],
)
def test_a_name_that_no_table_has_is_refused(chosen: dict[str, Any], message: str) -> None:
    """What is misspelt is not an empty choice."""
    with pytest.raises(ValueError, match=message):
        parts_of(TABLES, **chosen)


def test_a_killed_run_measures_nothing_twice(tmp_path: Path) -> None:
    """The second run measures what the first did not, and the third nothing."""
    cells = asked(methods=["IWP", "FastV"], benchmarks=["POPE"])
    first, second, third = Measuring(killed_at=3), Measuring(), Measuring()
    with pytest.raises(Killed):
        reproduce(cells, Results(tmp_path / "results.json", VERSIONS), first, tell)

    for measuring in (second, third):
        assert reproduce(cells, Results(tmp_path / "results.json", VERSIONS), measuring, tell) == []

    assert first.asked + second.asked == cells
    assert third.asked == []


def test_a_cell_that_fails_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    """One broken benchmark does not end a run of days; it is tried again in the next."""
    cells = asked(methods=["IWP"], budgets=[0.111], benchmarks=["POPE", "DocVQA"])
    results = Results(tmp_path / "results.json", VERSIONS)

    failures = reproduce(cells, results, Measuring(broken="pope"), tell)

    assert [(failure.cell.task, failure.reason) for failure in failures] == [
        ("pope", "RuntimeError: document 7 cannot be answered")
    ] * 2
    again = Measuring()
    assert reproduce(cells, results, again, tell) == []
    assert [cell.task for cell in again.asked] == ["pope", "pope"]


def test_published_and_measured_are_compared(tmp_path: Path) -> None:
    """Scores are in the paper's unit, the average over the benchmarks that were asked for."""
    (part,) = parts_of(TABLES, names=["4"], methods=["IWP"], budgets=[0.111], benchmarks=["POPE", "DocVQA"])
    results = Results(tmp_path / "results.json", VERSIONS)
    reproduce(cells_of([part], CONDUCT), results, Measuring(), tell)

    lines = {(each.row, each.benchmark): each for each in compared(part, results, CONDUCT)}

    pope, average = lines["IWP", "POPE"], lines["IWP", AVERAGE]
    assert (pope.published, pope.measured, pope.difference) == pytest.approx((84.0, 60.0, -24.0))
    assert average.published == pytest.approx(100 * (71.9 / 87.1 + 84.0 / 88.3) / 2)
    assert average.measured == pytest.approx(75.0)
    assert lines["all tokens", "POPE"].measured == pytest.approx(80.0)


def test_an_average_of_a_part_is_not_told_as_one_of_all(tmp_path: Path) -> None:
    """Where a benchmark has no score, the row has no average."""
    (part,) = parts_of(TABLES, names=["4"], methods=["IWP"], budgets=[0.111], benchmarks=["POPE", "DocVQA"])
    results = Results(tmp_path / "results.json", VERSIONS)
    reproduce(cells_of([part], CONDUCT), results, Measuring(broken="pope"), tell)

    lines = {(each.row, each.benchmark): each.measured for each in compared(part, results, CONDUCT)}

    assert lines["IWP", "DocVQA"] == pytest.approx(60.0)
    assert lines["IWP", "POPE"] is None
    assert lines["IWP", AVERAGE] is None


def test_scores_of_another_version_are_not_mixed_in(tmp_path: Path) -> None:
    """What an older version measured is refused, not compared."""
    path = tmp_path / "results.json"
    reproduce(asked(methods=["IWP"], benchmarks=["POPE"])[:1], Results(path, VERSIONS), Measuring(), tell)

    with pytest.raises(ValueError, match="measured with iwp 1, lmms-eval 2, and this is iwp 9"):
        Results(path, {**VERSIONS, "iwp": "9"})


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": {}}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """A folder that holds other results is not written to."""
    path = tmp_path / "results.json"
    path.write_text(text)

    with pytest.raises(ValueError, match="holds no measurements"):
        Results(path, VERSIONS)
    assert path.read_text() == text


def test_flash_attention_is_not_asked_of_methods_that_weigh_attention() -> None:
    """PACT needs weights of attention, which FlashAttention does not give; the paper's rule does not."""
    flash = Conduct(attention="flash_attention_2")
    cells = cells_of(parts_of(TABLES, names=["4"], methods=["PACT", "IWP"], benchmarks=["POPE"]), flash)

    attention = {str((cell.settings or {}).get("method")): cell.attention for cell in cells}

    assert attention == {"None": "flash_attention_2", "pact": "sdpa"}
    assert json.dumps([cell.identity() for cell in cells])

"""The papers' tables as they stand in the file: whole, in agreement with themselves, and possible to prune."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iwp_lmms_eval.cells import Conduct, cells_of, parts_of
from iwp_lmms_eval.paper_tables import load_tables, relative_average
from iwp_lmms_eval.reproduction import model_trouble

TABLES = load_tables()
PAPERS = [name for name, table in TABLES.items() if not table.model.miniature]
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

# The paper rounds its scores to a tenth, and prints averages of what it rounded.
ROUNDING = 0.2
MISPRINTED = {
    ("6", "DivPrune", 0.111): 94.4,
    ("6", "IWP", 0.111): 96.4,
    ("E.2", "in magnitude", 0.353): 93.7,
    ("E.4", "CDPruner", 0.353): 87.5,
}
"""Averages that do not follow from the printed scores, with what does."""


@pytest.mark.parametrize("name", PAPERS)
def test_printed_averages_are_means_of_shares(name: str) -> None:
    """The relative average of the printed scores is the printed one: a wrong figure in the file would show."""
    table = TABLES[name]
    for row in table.rows:
        found = relative_average(row.scores, table.rows[0].scores)
        expected = MISPRINTED.get((name, row.label, row.budget), row.average)
        assert found == pytest.approx(expected, abs=ROUNDING), row


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl"])
def test_figures_of_the_miniatures_are_those_that_were_measured(name: str) -> None:
    """What is called published is what the result file of the accuracies says, kind by kind."""
    measured = json.loads((RESULTS / f"accuracy_{name}.json").read_text())["cells"]
    rules = {"IWP": "IWP (the paper's default)", "IWP, per-query preset": "per-query preset (ours)"}

    for row in TABLES[f"miniature-{name}"].rows:
        key = "full" if row.settings is None else f"{rules.get(row.label, row.label)} | layer 2 | {row.budget:.1%}"
        assert row.scores == pytest.approx(tuple(measured[key]["by_kind"].values()), abs=0.051), row


def test_every_row_can_be_pruned_or_says_why_not() -> None:
    """All settings of all tables fit the models that they were published for; no weights are needed to tell."""
    cells = cells_of(parts_of(TABLES, names=list(TABLES), benchmarks=["POPE", "MLVU", "position"]), Conduct())

    assert len(cells) > 70
    assert model_trouble(cells) == {}


def test_a_setting_that_the_model_has_no_layer_for_is_found() -> None:
    """Trouble is told by the cell, with the reason: the check above can fail."""
    tables = {"E.3": load_tables()["E.3"]}
    (cell,) = cells_of(parts_of(tables, names=["E.3"], methods=["layer 10"], benchmarks=["POPE"]), Conduct())[1:]
    object.__setattr__(cell, "settings", {"budget": 0.353, "layer": 28})

    assert "from 0 to 27" in model_trouble([cell])[cell.key]


def test_the_relative_average_weighs_benchmarks_alike() -> None:
    """A benchmark whose scores are thousands counts as much as one whose scores are tenths."""
    assert relative_average([1000.0, 0.1], [2000.0, 0.1]) == 75.0


def test_a_file_that_names_what_it_has_not_is_refused(tmp_path: Path) -> None:
    """A table of an unknown model is one error, not a half-read file."""
    path = tmp_path / "tables.toml"
    path.write_text('[[tables]]\nname = "1"\nmodel = "none"\nbenchmarks = "none"\n[benchmarks]\n')

    with pytest.raises(ValueError, match="cannot be read: KeyError: 'none'"):
        load_tables(path)

"""Tables of methods against numbers made by hand, and the pages against the result files."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
pytest.importorskip("matplotlib", reason="plots need matplotlib")

from iwp_transformers.methods import METHODS

ROWS = {
    "best": [True] * 8,
    "random, seed 0": [True, False] * 4,
    "random, seed 1": [True, False] * 4,
    "random, seed 2": [True, False] * 4,
    "bad": [False] * 7 + [True],
}


HEADER = {
    "command": "python it.py",
    "device": "a machine",
    "versions": {"torch": "2", "transformers": "5"},
    "commit": "0",
    "date": "2026-01-01",
}


def entry(right: list[bool]) -> dict[str, Any]:
    """Write a cell as bench_accuracy.py does, of a rule that leaves a fifth from layer 1 of 2 on."""
    return {
        "right": np.packbits(np.array(right)).tobytes().hex(),
        "mean": 100 * float(np.mean(right)),
        "layers": [1],
        "visual_by_layer": [1.0, 0.2],
        "standard_error": 1.0,
        "mean_share": 0.6,
        "flops_share": 0.55,
    }


@pytest.fixture
def made() -> dict[str, Any]:
    """Return a result of eight questions at one place and budget."""
    cells = {f"{name} | layer 1 | 20.0%": entry(right) for name, right in ROWS.items()}
    cells |= {"full": entry([True] * 8), "no picture": entry([False] * 8)}
    cells["odd | layer 1 | 20.0%"] = {"refused": "it cannot"}
    return {"header": {"questions": 8}, "cells": cells}


def test_rows_come_best_first_with_cost_and_difference_to_chance(made: dict[str, Any]) -> None:
    """The best is 50 points over chance: differences of 0 and 1, whose deviation sqrt(2 / 7) is over the root of 8."""
    lines = import_module("methods_tables").table(made, "layer 1", [0.2]).splitlines()

    assert [line.split("|")[1].strip() for line in lines[2:]] == ["best", "random (three seeds)", "bad"]
    assert lines[2].split("|")[2:6] == [
        " 100.0 ± 0.0 (55%) ",
        f" +50.0 ± {100 * (2 / 7) ** 0.5 / 8**0.5:.1f} ",
        " 1: 20.0% ",
        " 60.0% ",
    ]


def test_a_method_stands_where_two_standard_errors_put_it(made: dict[str, Any]) -> None:
    """The best is ahead of chance; the bad one is behind the best, but of eight questions not clearly behind chance."""
    tables, results = import_module("methods_tables"), {"a": made}

    assert tables.standing(results, "best", "layer 1") == {"cells": 1, "ahead": 1, "behind": 0, "best": 1}
    assert tables.standing(results, "bad", "layer 1") == {"cells": 1, "ahead": 0, "behind": 0, "best": 0}
    assert tables.verdict(results, "best").splitlines() == [
        "Right answers in percent; in brackets, those of random choice at the same place and budget.",
        "",
        "| where | miniature | 20.0% kept |",
        "|---|---|---|",
        "| layer 1 | a | 100 (50) |",
        "",
        "Layer 1: clearly ahead of random choice in 1 of 1 cells, clearly behind it in 0, level with the best method"
        " in 1.",
    ]
    assert tables.verdict(results, "none") == "Not measured."


def test_what_could_not_be_measured_is_listed_with_the_reason(made: dict[str, Any]) -> None:
    """And has no row."""
    tables = import_module("methods_tables")

    assert tables.refused(made) == ["odd, layer 1: it cannot (20.0%)"]
    assert "odd" not in tables.table(made, "layer 1", [0.2])


def test_growth_is_the_exponent_of_the_largest_two_sizes() -> None:
    """Time that quadruples when tokens double grows with their square; what was left out does not count."""
    bench = import_module("bench_methods")

    assert bench.exponent({"10": 9.0, "20": 1.0, "40": 4.0, "80": None}) == pytest.approx(2.0)
    assert bench.exponent({"10": 9.0}) is None


def test_one_scale_brings_official_ways_to_their_figures() -> None:
    """What takes as long as its figure at the scale that most say deviates by nothing; within a range nothing does."""
    bench = import_module("bench_methods")
    units = {"divprune": 2.8, "vispruner": 64.2, "scope": 16.9, "pact": 1.1}
    table = {name: {"seconds": {"official": 3 * each, "gram": 3.0}} for name, each in units.items()}

    assert bench.add_deviations(table) == pytest.approx((0.5 + 0.65 / 1.1) / 2)
    assert [table[name]["gram_products"] for name in units] == pytest.approx(list(units.values()))
    scale = (0.5 + 0.65 / 1.1) / 2
    assert table["scope"]["deviation"] == pytest.approx(scale - 1)
    assert table["divprune"]["deviation"] == pytest.approx(2 * scale - 1)
    assert table["pact"]["deviation"] == 0


def test_a_size_that_would_take_too_long_is_left_out() -> None:
    """The first size is always measured, a later one if the one before promises it."""
    table = import_module("bench_methods").growth([576, 1024], 8, 0.1, 0, patience=0.0)

    assert set(table) == set(METHODS) - {"vtw"}
    for measured in table.values():
        assert measured["seconds"]["576"] > 0
        assert measured["seconds"]["1024"] is None


@pytest.fixture(scope="module")
def results() -> Any:
    """Return what was measured of all methods on both miniatures."""
    return import_module("methods_report").measured_results()


def test_the_page_of_evidence_is_what_was_measured(results: Any) -> None:
    """Part by part; no part is missing."""
    report = import_module("methods_report")
    text = (report.DOCS / "evidence.md").read_text("utf-8")

    assert report.evidence(text, results) == text
    assert all(f"<!-- measured: {name} -->" in text for name in report.parts(results))


def test_parts_are_written_where_they_stand(made: dict[str, Any]) -> None:
    """Of a page that has none yet, what stands between the marks is left, and writing again changes nothing."""
    report = import_module("methods_report")
    page = "<!-- measured: standings -->\n<!-- end -->\n\nwords\n\n<!-- measured: a -->\n<!-- end -->\n"

    written = report.evidence(page, {"a": made | {"header": {**HEADER, "questions": 8}}})

    assert "words" in written
    assert written.count("<!-- measured: ") == 2
    assert "| best | 1 of 1" in written


@pytest.mark.parametrize("name", METHODS)
def test_where_a_method_wins_is_what_was_measured(results: Any, name: str) -> None:
    """The last part of its page."""
    report = import_module("methods_report")
    text = (report.DOCS / f"{name}.md").read_text("utf-8")

    assert report.page_with_verdict(text, results, name) == text


def test_bars_are_met() -> None:
    """Every rule is as fast as its bar, on torch and on NumPy, in the run whose table is shown."""
    report = import_module("methods_report")
    methods = report.read(report.RESULTS / "methods_cpu_2880.json")["methods"]

    assert methods
    for name, measured in methods.items():
        assert min(measured["speedup"].values()) >= measured["bar"], name
        assert all(measured["agreement"].values()), name


def test_every_method_belongs_to_one_family_with_a_marker_for_each() -> None:
    """Random choice and options after a comma too; a few rows alone are one family, from wherever they come."""
    plots = import_module("methods_plots")
    names = [*METHODS, "iwp, per-query preset", "random (three seeds)", "my_rule"]

    found = plots.families(names)

    assert sorted(name for members in found.values() for name in members) == sorted(names)
    assert max(map(len, found.values())) <= len(plots.MARKERS)
    assert {"iwp", "iwp, per-query preset", "random (three seeds)"} <= set(found["IWP and baselines"])
    assert found["rules from outside"] == ["my_rule"]
    assert plots.families(["my_rule", "iwp"]) == {"all methods": ["my_rule", "iwp"]}

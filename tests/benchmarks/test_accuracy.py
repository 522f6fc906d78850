"""The accuracy benchmark: its rows against slow readings of what they mean, its report against numbers made by hand."""

from __future__ import annotations

import itertools
import json
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")

from iwp_miniature import KINDS, draw_examples, load_miniature
from iwp_transformers import prune_visual_tokens
from tests.benchmarks.test_analysis_miniature import random_miniature
from tests.integrations import oracle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["llava-onevision", "qwen2.5-vl"])
def evaluation(request: pytest.FixtureRequest) -> Any:
    """Ask a trained miniature, which is right often but not always, one question of every kind and style."""
    miniature = load_miniature(request.param)
    asked = draw_examples(miniature.architecture, split="test", per_kind=1, seed=3)
    return import_module("bench_accuracy").Evaluation(miniature, asked)


def said(evaluation: Any, words: list[str]) -> list[bool]:
    """Compare answers given one by one with the right ones."""
    return [word == each.question.answer for word, each in zip(words, evaluation.examples, strict=True)]


def alone(evaluation: Any, index: int) -> dict[str, torch.Tensor]:
    """Encode one question without the benchmark's batches and precomputed features."""
    example = evaluation.examples[index]
    encoded: dict[str, torch.Tensor] = evaluation.miniature.encode([example.scene.image], [example.question.text])
    return encoded


@pytest.mark.parametrize(("rule", "layer"), [("IWP (the paper's default)", 1), ("FastV", 4)])
def test_a_rule_answers_as_the_model_does_pruned_one_question_at_a_time(evaluation: Any, rule: str, layer: int) -> None:
    """Batches, features and first layers computed before, and the order of answers change nothing."""
    model, rules = evaluation.miniature.model, import_module("accuracy_rules")
    options = rules.options(rule, rules.Asked([], []))
    words = []
    for index in range(len(evaluation.examples)):
        with prune_visual_tokens(model, budget=0.222, layer=layer, **options):
            words += evaluation.miniature.answer(alone(evaluation, index))

    assert evaluation.pruned(rule, layer, 0.222).tolist() == said(evaluation, words)


def test_all_tokens_answer_as_no_rule(evaluation: Any) -> None:
    """A budget of everything is the model itself, for rules of this library and for rivals."""
    full = evaluation.right(lambda _batch: nullcontext()).tolist()

    for rule in ("IWP (the paper's default)", "FastV, window", "pooling", "DivPrune", "tokens of the digits asked for"):
        assert evaluation.pruned(rule, 2, 1.0).tolist() == full


def test_hidden_visual_tokens_are_seen_by_no_later_layer(evaluation: Any) -> None:
    """Against the oracle of the hooks' tests, on every question."""
    miniature, words = evaluation.miniature, []
    for index in range(len(evaluation.examples)):
        inputs = alone(evaluation, index)
        logits = oracle.true_logits(
            miniature.model, inputs, 1, inputs["input_ids"] == miniature.model.config.image_token_id
        )
        words += miniature.tokenizer.batch_decode(logits[:, -1].argmax(-1)[:, None])

    assert evaluation.without_visual_tokens(1).tolist() == said(evaluation, words)


def test_every_rule_keeps_the_budget(evaluation: Any) -> None:
    """Each rule of the tables runs and keeps distinct tokens, as many as asked for."""
    rules = import_module("accuracy_rules")
    few = import_module("bench_accuracy").Evaluation(evaluation.miniature, evaluation.examples[:2])
    (batch,) = few.batches
    for name in rules.RULES:
        options = rules.options(name, batch.asked)
        with prune_visual_tokens(few.miniature.model, budget=0.111, layer=2, **options) as session:
            few._answers(batch.inputs)
        kept = session.records[-1].kept
        assert {len(set(row.tolist())) for row in kept} == {len(kept[0])}, name


def test_a_stopped_run_goes_on_with_the_same_weights_only(tmp_path: Path) -> None:
    """A lost cell is measured again, figures follow from the bits, and another model's file is refused."""
    bench, folder, output = import_module("bench_accuracy"), tmp_path / "weights", tmp_path / "made.json"
    miniature = random_miniature("qwen2.5-vl")
    miniature.tokenizer.save_pretrained(folder)
    miniature.model.save_pretrained(folder)
    command = ["qwen2.5-vl", "--folder", str(folder), "--per-kind", "2", "--rules", "none", "--output", str(output)]
    bench.main(command)
    made = json.loads(output.read_text())
    spoilt = json.loads(output.read_text())
    spoilt["header"]["commit"] = "another"
    spoilt["cells"]["full"]["mean"] = -1.0
    del spoilt["cells"]["no visual token | layer 2"]
    output.write_text(json.dumps(spoilt))

    bench.main(command)

    again = json.loads(output.read_text())
    assert again["cells"] == made["cells"]
    assert [entry["commit"] for entry in again["header"]["resumed"]] == [made["header"]["commit"]]
    miniature.model.lm_head.weight.data.neg_()
    miniature.model.save_pretrained(folder)
    with pytest.raises(SystemExit):
        bench.main(command)


def result(**answers: list[bool]) -> dict[str, Any]:
    """Write results as bench_accuracy.py does; one name a rule, at layer 2 and 11.1 %."""
    keyed = import_module("bench_accuracy").key
    cells = {
        keyed(name, 2, 0.111): {
            "right": np.packbits(np.array(right)).tobytes().hex(),
            "mean": 100 * float(np.mean(right)),
            "by_kind": dict.fromkeys(KINDS, 50.0),
            "relative_average": 60.0,
        }
        for name, right in answers.items()
    }
    cells["full"] = {"by_kind": dict.fromkeys(KINDS, 100.0)}
    return {"header": {"questions": len(next(iter(answers.values())))}, "cells": cells}


def test_differences_are_paired() -> None:
    """Of four questions one is won: 25 points; differences 1, 0, 0, 0 have a standard error of a quarter."""
    report = import_module("accuracy_report")
    made = result(**{report.PAPER: [False, True, False, True], "DivPrune": [True, True, False, True]})

    gap, error = report.difference(made, "DivPrune", report.PAPER, 2, 0.111)

    assert gap == pytest.approx(25.0)
    assert error == pytest.approx(25.0)


def test_the_random_row_is_the_mean_of_its_seeds() -> None:
    """Seeds are averaged question by question before they are compared."""
    report = import_module("accuracy_report")
    seeds = dict(zip(report.SEEDS, ([True, False], [True, False], [False, False]), strict=True))
    made = result(**{report.PAPER: [True, True], **seeds})

    lines = report.table(made, [report.PAPER, report.RANDOM]).splitlines()

    assert lines[2].split("|")[3].strip() == "100.0"
    gap, error = report.difference(made, report.RANDOM, report.PAPER, 2, 0.111)
    assert lines[3].split("|")[3].strip() == f"{100 / 3:.1f} ({gap:+.1f} ± {error:.1f})"
    assert gap == pytest.approx(-200 / 3)
    assert error == pytest.approx(100 / 3)  # differences -1/3 and -1: deviation sqrt(2)/3, over the root of 2


def test_every_training_run_has_its_entry(tmp_path: Path) -> None:
    """Runs come in the order of their seeds; the error told is the largest of theirs."""
    report = import_module("accuracy_report")
    names, preset = {*itertools.chain.from_iterable(report.CLAIMS), *report.SEEDS}, import_module("_harness").PRESET
    for seed, won in ((2, False), (0, True), (10, True)):
        answers = {name: [name == preset and won, True] * 2 for name in names}
        made = result(**answers)
        made["header"]["training_seed"] = seed
        (tmp_path / f"accuracy_qwen2.5-vl_seed{seed}.json").write_text(json.dumps(made))

    runs = report.training_runs("qwen2.5-vl", tmp_path)

    assert [run["header"]["training_seed"] for run in runs] == [0, 2, 10]
    line = report.seeds_table(runs).splitlines()[2]
    assert line.split("|")[3].strip() == "+50.0, +0.0, +50.0 (± 28.9)"  # of 1, 0, 1, 0: sqrt(1/3) over the root of 4


def test_rows_that_were_not_measured_stay_empty() -> None:
    """A missing cell is a dash, and no row of the table by kind."""
    report = import_module("accuracy_report")
    made = result(**{report.PAPER: [True, True]})

    assert report.table(made, ["DivPrune"]).splitlines()[-1] == "| DivPrune |" + " - |" * 4
    assert "DivPrune" not in report.kinds_table(made, [report.PAPER, "DivPrune"], 2, 0.111)


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl"])
def test_the_tables_of_the_pages_are_what_was_measured(name: str) -> None:
    """Line by line."""
    report = import_module("accuracy_report")
    measured = report.read(report.RESULTS / f"accuracy_{name}.json")

    assert report.table(measured, [*report.SHOWN, report.UPPER_BOUND]) in (ROOT / "docs" / "benchmarks.md").read_text(
        "utf-8"
    )
    runs = report.seeds_table(report.training_runs(name))
    assert runs in (ROOT / "benchmarks" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("name", "column"), [("llava-onevision", 2), ("qwen2.5-vl", 3)])
def test_the_table_of_the_readme_is_what_was_measured(name: str, column: int) -> None:
    """Rule by rule, at layer 2 and 11.1 %."""
    report = import_module("accuracy_report")
    measured = report.read(report.RESULTS / f"accuracy_{name}.json")
    readme = [line.replace("*", "").split("|") for line in (ROOT / "README.md").read_text("utf-8").splitlines()]
    said = {row[1].strip(): row[column].strip() for row in readme if len(row) == 5}
    rows = [line.split("|") for line in report.table(measured, report.SHOWN).splitlines()[2:]]
    shortened = {report.PAPER: "IWP, the paper's default", report.RANDOM: "random"}
    found = {shortened.get(row[1].strip(), row[1].strip()): row[3] for row in rows}

    assert said.pop("all tokens") == f"{measured['cells']['full']['mean']:.1f}"
    shared = said.keys() & found.keys()
    assert len(shared) == 6
    assert {rule: said[rule] for rule in shared} == {rule: found[rule].split()[0] for rule in shared}


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl"])
def test_the_weights_that_ship_are_those_that_were_measured(name: str) -> None:
    """By their digest, and the model card tells the accuracy of the result file."""
    bench, report = import_module("bench_accuracy"), import_module("accuracy_report")
    folder = ROOT / "integrations" / "iwp_miniature" / "weights" / name
    measured = report.read(report.RESULTS / f"accuracy_{name}.json")

    about = bench.trained(folder)

    assert {key: measured["header"][key] for key in about} == about
    full = measured["cells"]["full"]
    assert (
        f"{full['mean']:.1f} % right (standard error {full['standard_error']:.1f})"
        in (folder / "README.md").read_text()
    )

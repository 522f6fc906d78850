"""The accuracy of every method by its name: each runs as a user would run it, at the cost that its record tells."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")

from iwp_miniature import draw_examples, load_miniature
from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods import METHODS, method_named


@pytest.fixture(scope="module", params=["llava-onevision", "qwen2.5-vl"])
def evaluation(request: pytest.FixtureRequest) -> Any:
    """Ask a trained miniature six questions."""
    miniature = load_miniature(request.param)
    asked = draw_examples(miniature.architecture, split="test", per_kind=1, seed=3)[:6]
    return import_module("bench_accuracy").Evaluation(miniature, asked)


@pytest.mark.parametrize(
    ("name", "placement"),
    [
        ("visionzip", "as published"),
        ("prumerge", 2),
        ("sparsevlm", "as published"),
        ("pact", "as published"),
        ("v2drop", 2),
        ("vtw", "as published"),
    ],
)
def test_a_method_answers_as_the_model_does_one_question_at_a_time(
    evaluation: Any, name: str, placement: str | int
) -> None:
    """Batches, and a tower and first layers that ran before, change neither answers nor what is kept."""
    methods, model, rule = import_module("accuracy_methods"), evaluation.miniature.model, method_named(name)
    arguments, layers, _ = methods.placed(rule, placement, 0.222, len(evaluation.layers))
    words, kept, visual = [], 0, 0
    for example in evaluation.examples:
        inputs = evaluation.miniature.encode([example.scene.image], [example.question.text])
        with prune_visual_tokens(model, **arguments) as session:
            words += evaluation.miniature.answer(inputs)
        kept += len(session.records[0].kept[0])
        visual += len(session.records[0].visual[0])

    right, told = methods.measured(evaluation, methods.Row(name, rule), placement, 0.222)

    assert right.tolist() == [
        word == each.question.answer for word, each in zip(words, evaluation.examples, strict=True)
    ]
    assert told["kept_share"] == pytest.approx(kept / visual)
    assert told["layers"] == ([layers] if isinstance(layers, int) else list(layers))


def test_costs_are_those_of_all_batches_together() -> None:
    """Of two batches, 10 tokens of which 5 stay from layer 1 of 2, and 30 of which 3 stay."""
    made = [record(10, 5, flops=(100, 60)), record(30, 3, flops=(300, 90))]

    told = import_module("accuracy_methods").costs(made)

    assert told["kept_share"] == pytest.approx(8 / 40)
    assert told["visual_by_layer"] == pytest.approx([1.0, 0.2])
    assert told["mean_share"] == pytest.approx(0.6)
    assert told["flops_share"] == pytest.approx(150 / 400)


def record(visual: int, kept: int, *, flops: tuple[int, int]) -> Any:
    """Return what stands in for the record of one sample in a model of two layers."""
    summary = type(
        "Summary",
        (),
        {
            "visual_tokens": visual,
            "kept_tokens": kept,
            "visual_by_layer": (visual, kept),
            "flops_full": flops[0],
            "flops_pruned": flops[1],
            "selection_seconds": 0.0,
        },
    )
    return type("Record", (), {"summary": lambda _self: summary, "kept": (None,)})()


def test_every_method_of_the_library_is_measured() -> None:
    """By its own name, and random choice with three seeds."""
    rows = [row.name for row in import_module("accuracy_methods").library_rows()]

    assert {name.partition(",")[0] for name in rows} == set(METHODS)
    assert [name for name in rows if name.startswith("random")] == [f"random, seed {seed}" for seed in (0, 1, 2)]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "vtw"])
def test_layers_are_as_deep_as_published(name: str) -> None:
    """In as many layers as the paper had a method acts where it was published, with the budget as its mean share."""
    rule = method_named(name)
    arguments, layers, budgets = import_module("accuracy_methods").placed(rule, "as published", 0.222, 32)

    stages = [layers] if isinstance(layers, int) else list(layers)
    assert ", ".join(map(str, stages)) == rule.published_layers().partition(" of ")[0]
    shares = [budgets] if isinstance(budgets, float) else budgets
    spans = [after - before for before, after in zip(stages, [*stages[1:], 32], strict=True)]
    mean = sum(share * span for share, span in zip(shares, spans, strict=True)) / sum(spans)
    assert mean == pytest.approx(0.222)
    assert arguments["budget"] == 0.222


def test_vtw_withdraws_at_the_layer_of_the_nearest_mean_share() -> None:
    """Of eight layers, three see the tokens for a budget of 35.3 %; at a given layer it has no budget to meet."""
    methods = import_module("accuracy_methods")

    assert methods.placed(method_named("vtw"), "as published", 0.353, 8)[1:] == ((3,), (0,))
    with pytest.raises(ValueError, match="the layer of vtw is its budget"):
        methods.placed(method_named("vtw"), 2, 0.353, 8)


RULE = "import iwp_core.methods as m\n\n\ndef mine(view):\n    return m.{rule}(view.visual.hidden, view.budget{more})\n"


def test_a_rule_from_outside_is_measured_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that keeps evenly spaced tokens answers as `uniform`; table, plot and file follow, anew for another rule."""
    bench = import_module("bench_accuracy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = ["llava-onevision", "--rule", "outside_rule:mine", "--budgets", "0.111"]
    command += ["--beside", "uniform", "--per-kind", "1"]
    answers = {}
    for rule, more in (("uniform", ""), ("random_tokens", ", seed=1")):
        (tmp_path / "outside_rule.py").write_text(RULE.format(rule=rule, more=more))
        sys.modules.pop("outside_rule", None)
        bench.main(command)
        cells = json.loads((tmp_path / "rule_mine_llava-onevision.json").read_text())["cells"]
        answers[rule] = cells["mine | layer 2 | 11.1%"]

    assert answers["uniform"]["right"] == cells["uniform | layer 2 | 11.1%"]["right"]
    assert answers["random_tokens"]["right"] != answers["uniform"]["right"]
    assert "| mine | " in capsys.readouterr().out
    assert (tmp_path / "rule_mine_llava-onevision.png").stat().st_size > 0


@pytest.mark.parametrize("place", ["math", "math:no_such_rule", "math:pi"])
def test_what_is_no_rule_is_refused(place: str) -> None:
    """A module alone, a name that it has not, and what cannot be called."""
    with pytest.raises(ValueError, match="`--rule` is"):
        import_module("accuracy_methods").outside_row(place)

"""The accuracy of every method by its name: each runs as a user would run it, at the cost that its record tells."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")

from iwp_miniature import draw_examples, load_miniature
from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods import METHODS


@pytest.fixture(scope="module", params=["llava-onevision", "qwen2.5-vl"])
def evaluation(request: pytest.FixtureRequest) -> Any:
    """Ask a trained miniature eight questions."""
    miniature = load_miniature(request.param)
    asked = draw_examples(miniature.architecture, split="test", per_kind=1, seed=3)[:8]
    return import_module("bench_accuracy").Evaluation(miniature, asked)


def by_placement(methods: Any, placement: str | int) -> dict[str, Any]:
    """Return the rows of the library by name."""
    return {row.name: row for row in methods.library_rows() if placement == "as published" or row.name != "vtw"}


@pytest.mark.parametrize("placement", ["as published", 2])
def test_methods_answer_as_the_model_does_one_question_at_a_time(evaluation: Any, placement: str | int) -> None:
    """Batches, and towers and first layers that ran before, change neither answers nor costs."""
    methods, model = import_module("accuracy_methods"), evaluation.miniature.model
    rows = by_placement(methods, placement)
    for name in ("visionzip", "prumerge", "sparsevlm", "pact", "v2drop", "vtw", "cdpruner"):
        if name not in rows:
            continue
        arguments, _, _ = methods.placed(rows[name].rule, placement, 0.222, len(evaluation.layers))
        words, kept, visual = [], 0, 0
        for example in evaluation.examples:
            inputs = evaluation.miniature.encode([example.scene.image], [example.question.text])
            with prune_visual_tokens(model, **arguments) as session:
                words += evaluation.miniature.answer(inputs)
            kept += len(session.records[0].kept[0])
            visual += len(session.records[0].visual[0])

        right, told = methods.measured(evaluation, rows[name], placement, 0.222)

        expected = [word == each.question.answer for word, each in zip(words, evaluation.examples, strict=True)]
        assert right.tolist() == expected, name
        assert told["kept_share"] == pytest.approx(kept / visual), name


def test_every_method_of_the_library_has_a_row() -> None:
    """By its own name, random ones with three seeds."""
    rows = {row.name.partition(",")[0] for row in import_module("accuracy_methods").library_rows()}

    assert rows == set(METHODS)

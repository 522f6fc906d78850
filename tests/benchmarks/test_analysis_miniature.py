"""The analysis figures: each number against a slow reading of its definition, and the command on random weights."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iwp_miniature import ARCHITECTURES, KINDS, Miniature, architecture, draw_examples
from iwp_miniature.vocabulary import make_tokenizer
from iwp_transformers import prune_visual_tokens
from tests import oracles

LAYERS = 3


def random_miniature(name: str) -> Miniature:
    """Make a miniature with random weights and only some layers."""
    torch.manual_seed(0)
    kind = architecture(name)
    config = kind.random_model().config
    config.text_config.num_hidden_layers = LAYERS
    config.text_config.layer_types = config.text_config.layer_types[:LAYERS]
    model = kind.model_class(config).eval()
    model.generation_config.max_new_tokens = 1
    return Miniature(kind, model, make_tokenizer())


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def miniature(request: pytest.FixtureRequest) -> Miniature:
    """Give each architecture in turn."""
    return random_miniature(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write both miniatures as `load_miniature` reads them."""
    place = tmp_path_factory.mktemp("weights")
    for name in ARCHITECTURES:
        made = random_miniature(name)
        made.model.save_pretrained(place / name)
        made.tokenizer.save_pretrained(place / name)
    return place


@pytest.fixture(scope="module")
def output(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the command once; its folder did not exist."""
    place = tmp_path_factory.mktemp("results") / "new"
    arguments = ["--folder", str(folder), "--examples", "1", "--layer", "1", "--output", str(place)]
    import_module("analysis_miniature").main(arguments)
    return place


def read(output: Path, what: str) -> Any:
    """Read one JSON file of results."""
    return json.loads((output / f"analysis_{what}.json").read_text(encoding="utf-8"))


# Accuracy by layer.


def flags(text: str) -> NDArray[np.bool_]:
    """Read right and wrong answers."""
    return np.array([letter == "r" for letter in text])


def test_the_relative_average_is_the_mean_over_kinds_of_accuracy_over_that_without_pruning() -> None:
    """By hand: kind a keeps 1 of 2 right answers, kind b gains one on 3, of four questions each."""
    answers = import_module("answers")
    kinds = np.array(list("abababab"))
    full, pruned = flags("rrwrrrww"), flags("rrwrwrwr")
    assert full[kinds == "a"].sum() == 2
    assert full[kinds == "b"].sum() == 3
    mean, _ = answers.relative_average(pruned, full, kinds)
    assert mean == pytest.approx((1 / 2 + 4 / 3) / 2)
    accuracy, _ = answers.mean_accuracy(pruned, kinds)
    assert accuracy == pytest.approx((1 / 4 + 4 / 4) / 2)


def test_what_was_never_right_has_no_relative_average() -> None:
    """A kind without a right answer leaves nothing to divide by."""
    answers = import_module("answers")
    kinds = np.array(list("aabb"))
    assert answers.relative_average(flags("rrrr"), flags("rrww"), kinds) is None


def test_accuracies_are_told_by_kind_style_layer_and_budget() -> None:
    """Counted question by question, on answers drawn at random."""
    layers, runs = import_module("analysis_layers"), import_module("analysis_runs")
    rng = np.random.default_rng(4)
    examples = draw_examples(architecture("qwen2.5-vl"), split="test", per_kind=3)
    full = runs.Run(rng.random(len(examples)) < 0.9, (), ())
    pruned = {
        runs.Setting(layer, budget): runs.Run(rng.random(len(examples)) < 0.6, (), ())
        for layer, budget in itertools.product(range(2), (0.111, 0.353))
    }
    found = layers.measure_layers(examples, full, pruned)

    def share(run: Any, **wanted: str) -> float:
        among = [
            right
            for each, right in zip(examples, run.right, strict=True)
            if wanted.get("kind", each.question.kind) == each.question.kind
            and wanted.get("style", each.scene.layout.style) == each.scene.layout.style
        ]
        return 100 * float(np.mean(among))

    assert list(found["budgets"]) == ["35.3 %", "11.1 %"]
    told = [(found["without pruning"], full)]
    for setting, run in pruned.items():
        row = found["budgets"][f"{100 * setting.budget:.1f} %"][setting.layer]
        assert row["layer"] == setting.layer
        told.append((row, run))
    for row, run in told:
        # Every kind and style has as many questions, so that means over kinds are shares of all questions.
        assert row["mean"] == pytest.approx(share(run))
        assert row["by_kind"] == pytest.approx({kind: share(run, kind=kind) for kind in KINDS})
        for style in ("sparse", "dense"):
            assert row[style] == pytest.approx(share(run, style=style))
    row, run = told[-1]
    ratios = [share(run, kind=kind) / share(full, kind=kind) for kind in KINDS]
    assert row["relative_average"] == pytest.approx(100 * np.mean(ratios))


@pytest.mark.parametrize("estimator", ["relative_average", "mean_accuracy"])
def test_standard_errors_are_the_spread_of_repeated_experiments(estimator: str) -> None:
    """Two thousand experiments with answers that hang together; the errors told agree with the spread seen."""
    answers = import_module("answers")
    rng = np.random.default_rng(0)
    kinds = np.array(["a"] * 150 + ["b"] * 90)
    chance = np.where(kinds == "a", 0.9, 0.7)
    estimates, errors = [], []
    for _ in range(2000):
        full = rng.random(len(kinds)) < chance
        pruned = np.where(rng.random(len(kinds)) < 0.8, full, rng.random(len(kinds)) < 0.4)
        given = (pruned, full, kinds) if estimator == "relative_average" else (pruned, kinds)
        estimate, error = getattr(answers, estimator)(*given)
        estimates.append(estimate)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.06)


# Overlap between layers.


def test_overlaps_are_those_of_sets() -> None:
    """Intersection over union with Python's sets, averaged by hand; examples of different sizes."""
    rng = np.random.default_rng(1)
    sizes = [(30, 7), (30, 7), (45, 12)]
    kept = [[torch.from_numpy(np.sort(rng.permutation(n)[:m])) for n, m in sizes] for _ in range(LAYERS)]
    found = import_module("analysis_overlap").mean_overlaps(kept)
    for a, b in itertools.product(range(LAYERS), repeat=2):
        shares = [
            len(set(x.tolist()) & set(y.tolist())) / len(set(x.tolist()) | set(y.tolist()))
            for x, y in zip(kept[a], kept[b], strict=True)
        ]
        assert found[a, b] == pytest.approx(np.mean(shares))


@pytest.mark.parametrize(("count", "total"), [(1, 1), (1, 4), (3, 6), (4, 6), (5, 5)])
def test_the_overlap_of_random_sets_is_the_mean_over_all_pairs(count: int, total: int) -> None:
    """Every pair of sets, one by one."""
    sets = [set(chosen) for chosen in itertools.combinations(range(total), count)]
    shares = [len(a & b) / len(a | b) for a, b in itertools.product(sets, repeat=2)]
    assert import_module("analysis_overlap").expected_overlap(count, total) == pytest.approx(np.mean(shares))


# Similarity of tokens.


def test_similarities_are_the_papers() -> None:
    """Both factors of proposition 1 and the squared dual similarity, in float64, head means of the oracle's."""
    rng = np.random.default_rng(2)
    keys, values = rng.normal(size=(2, 9, 8)), rng.normal(size=(2, 9, 5))
    found = import_module("analysis_similarity").similarities(torch.from_numpy(keys), torch.from_numpy(values))
    wanted = {
        "kernel key": np.mean([oracles.kernel_cosine(k, "exponential") for k in keys], axis=0),
        "value": np.mean([oracles.cosines(v) for v in values], axis=0),
        "dual, squared": oracles.duplication(keys, values),
    }
    assert found.keys() == wanted.keys()
    for space, expected in wanted.items():
        np.testing.assert_allclose(found[space], expected, atol=1e-12)


def test_modality_means_leave_the_diagonal_out() -> None:
    """Pair by pair, on a map whose diagonal would spoil every mean."""
    rng = np.random.default_rng(3)
    table = rng.random((8, 8))
    table = table + table.T + 100 * np.eye(8)
    pairs: dict[str, list[float]] = {"within visual": [], "within text": [], "across": []}
    for i, j in itertools.combinations(range(8), 2):
        kind = "across" if i < 5 <= j else "within visual" if j < 5 else "within text"
        pairs[kind].append(table[i, j])
    found = import_module("analysis_similarity").modality_means(table, 5)
    assert found == pytest.approx({name: np.mean(values) for name, values in pairs.items()})


@pytest.mark.parametrize("layer", range(LAYERS))
def test_tokens_are_read_as_the_cache_holds_them(miniature: Miniature, layer: int) -> None:
    """Keys with rotary embedding and values equal those in the cache of an unpruned forward, padding left out."""
    examples = draw_examples(miniature.architecture, split="test", per_kind=1)[5:12:3]
    images, questions = [each.scene.image for each in examples], [each.question.text for each in examples]
    inputs = miniature.encode(images, questions)
    assert not inputs["attention_mask"].all(), "the batch needs padding to test it"
    with torch.no_grad():
        held = miniature.model(**inputs, use_cache=True).past_key_values.layers[layer]
    found = import_module("analysis_similarity").read_tokens(miniature, inputs, layer)
    assert len(found) == len(examples)
    for row, tokens in enumerate(found):
        first = (inputs["input_ids"][row] == miniature.model.config.image_token_id).nonzero()[0, 0]
        torch.testing.assert_close(tokens.keys, held.keys[row, :, first:])
        torch.testing.assert_close(tokens.values, held.values[row, :, first:])
        assert tokens.visual == (inputs["input_ids"][row] == miniature.model.config.image_token_id).sum()


# What runs through the model.


def test_runs_judge_and_record_what_generate_does(miniature: Miniature) -> None:
    """Answers and kept tokens equal those of `generate` on the pixels, example by example; half are made right."""
    runs = import_module("analysis_runs")
    setting = runs.Setting(1, 0.222)
    examples = draw_examples(miniature.architecture, split="test", per_kind=1)[:6]
    inputs = miniature.encode([each.scene.image for each in examples], [each.question.text for each in examples])
    with prune_visual_tokens(miniature.model, budget=setting.budget, layer=setting.layer) as session, torch.no_grad():
        output = miniature.model.generate(**inputs, do_sample=False)
    said = [text.strip() for text in miniature.tokenizer.batch_decode(output[:, -1:], skip_special_tokens=True)]
    judged = [
        replace(each, question=replace(each.question, answer=words if index % 2 else "unsaid"))
        for index, (each, words) in enumerate(zip(examples, said, strict=True))
    ]
    told: list[int] = []
    full, pruned = runs.run_settings(miniature, judged, [setting], told.append)
    assert pruned[setting].right.tolist() == [False, True] * 3
    assert [kept.tolist() for kept in pruned[setting].kept] == [kept.tolist() for kept in session.records[-1].kept]
    assert pruned[setting].totals == tuple(map(len, session.records[-1].visual))
    with torch.no_grad():
        whole = miniature.model.generate(**inputs, do_sample=False)
    words = [text.strip() for text in miniature.tokenizer.batch_decode(whole[:, -1:], skip_special_tokens=True)]
    wanted = [word == each.question.answer for word, each in zip(words, judged, strict=True)]
    assert full.right.tolist() == wanted
    assert full.kept == ()
    assert sum(told) == 2 * len(examples)


def test_answers_are_marked_and_no_label_covers_another(miniature: Miniature) -> None:
    """Right answers get a tick, wrong ones a cross, and even the longest words leave each other room."""
    module = import_module("analysis_kept")
    examples = draw_examples(miniature.architecture, split="test", per_kind=1)
    case = module.kept_cases(miniature, examples, 1)[0]
    longest = replace(case.example.question, answer="column3")
    case = replace(
        case,
        example=replace(case.example, question=longest),
        answer="column3",
        answers=dict(zip(case.answers, ("column3", "column2", ""), strict=True)),
    )
    figure = module.kept_figure({"some model": [case, case]}, 1)
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.texts]
    assert shown.count("answer: column3 ✓") == 4
    assert shown.count("answer: column2 ✗") == 2
    assert shown.count("answer: (nothing) ✗") == 2
    assert any(longest.text in text for text in shown)
    boxes = [text.get_window_extent() for text in figure.texts] + [axes.get_window_extent() for axes in figure.axes]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


# The command.


@pytest.mark.parametrize("what", ["layers", "overlap", "similarity", "kept"])
def test_the_command_writes_a_picture_and_its_numbers(output: Path, what: str) -> None:
    """A PNG, and a JSON file with the header of every benchmark and both models."""
    assert (output / f"analysis_{what}.png").read_bytes().startswith(b"\x89PNG")
    found = read(output, what)
    assert found["command"] == "python benchmarks/analysis_miniature.py"
    assert found["settings"] == {"examples": 1, "layer": 1, "seed": 0, "threads": 1}
    assert {"device", "versions", "commit", "date"} <= found.keys()
    assert list(found["models"]) == list(ARCHITECTURES)


def test_accuracies_stand_for_every_layer_and_budget(output: Path) -> None:
    """A row for each layer, over two questions of each kind."""
    for measured in read(output, "layers")["models"].values():
        assert measured["questions"] == 2 * len(KINDS)
        assert list(measured["budgets"]) == ["35.3 %", "11.1 %"]
        for table in measured["budgets"].values():
            assert [row["layer"] for row in table] == list(range(LAYERS))


def test_overlaps_are_symmetric_with_ones_on_the_diagonal(output: Path) -> None:
    """As a table of intersections over union must be."""
    for measured in read(output, "overlap")["models"].values():
        for entry in measured.values():
            table = np.array([row.split() for row in entry["mean overlap, layers by layers"]], dtype=float)
            assert table.shape == (LAYERS, LAYERS)
            np.testing.assert_array_equal(table, table.T)
            np.testing.assert_array_equal(np.diag(table), 1)
            assert 0 < entry["of random sets"] < 0.25


def test_similarities_stand_for_one_prompt_and_every_layer(output: Path) -> None:
    """Maps of the last tokens, means in the cosines' range."""
    module = import_module("analysis_similarity")
    for measured in read(output, "similarity")["models"].values():
        assert measured["layer"] == 1
        assert measured["visual tokens shown"] + measured["text tokens"] == module.SHOWN
        assert measured["text tokens"] >= len(measured["question"].split())
        assert [entry["layer"] for entry in measured["means over prompts"]] == list(range(LAYERS))
        for space, rows in measured["maps shown"].items():
            table = np.array([row.split() for row in rows], dtype=float)
            assert table.shape == (module.SHOWN, module.SHOWN)
            assert (-1 if space == "value" else 0) <= table.min() < table.max() <= 1
            assert -1 <= measured["means of this prompt"][space]["across"] <= 1


def test_as_many_tokens_are_kept_as_the_budgets_allow(output: Path) -> None:
    """By the contract's rounding; each budget's tokens are told."""
    for measured in read(output, "kept")["models"].values():
        for case in measured["cases"]:
            for budget, entry in case["budgets"].items():
                share = round(float(budget.split()[0]) / 100, 3)
                kept = [int(index) for index in entry["kept"].split()]
                assert len(set(kept)) == oracles.number_kept(share, case["visual tokens"])
                assert 0 <= min(kept) <= max(kept) < case["visual tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--examples", "0"], "`--examples` is 0, expected 1 or more"),
        (["--layer", "3"], "`--layer` is 3, expected 0 to 2"),
        (["--layer", "-1"], "`--layer` is -1, expected 0 to 2"),
        (["--threads", "0"], "`--threads` is 0, expected 1 or more"),
        (["--model", "gpt"], "invalid choice: 'gpt'"),
    ],
)
def test_bad_options_are_refused(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the option's name, what it was, and what is allowed, before anything is run."""
    with pytest.raises(SystemExit, match="2"):
        import_module("analysis_miniature").main(["--folder", str(folder), *arguments])
    assert message in capsys.readouterr().err


def test_a_folder_without_weights_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Saying what is missing."""
    with pytest.raises(SystemExit, match="2"):
        import_module("analysis_miniature").main(["--folder", str(tmp_path)])
    assert "lacks config.json" in capsys.readouterr().err

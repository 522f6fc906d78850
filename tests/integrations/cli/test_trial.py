"""What the page of `iwp demo --browser` shows for a choice, without a browser; and what the command refuses."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iwp_cli.app import app
from iwp_cli.commands import demo
from iwp_cli.refusal import Refusal
from iwp_cli.trial import LAYERS, METHOD_NAMES, Answer, Choice, Scene, Trials
from iwp_transformers import prune_visual_tokens
from iwp_transformers.presets import PER_QUERY

SEED = 14
PRESET = Choice(method="per-query", percent=11.1, layer=2)


@pytest.fixture(scope="module")
def trials() -> Trials:
    """Give the models once."""
    return Trials()


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Draw a picture of digits."""
    return Scene.drawn(SEED)


@pytest.fixture(scope="module")
def shown(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write it as the page holds it."""
    path = tmp_path_factory.mktemp("page") / "scene.png"
    scene.shown.save(path)
    return path


def rows(answer: Answer) -> dict[str, tuple[str, str]]:
    """Return the values with all tokens and with few, by their name."""
    return {name: (full, pruned) for name, full, pruned in answer.rows}


def test_answer_and_kept_tokens_are_those_of_a_session(trials: Trials, scene: Scene, shown: Path) -> None:
    """The enlarged picture on the page is asked about as the scene that it shows."""
    question, truth = next(iter(scene.answers.items()))
    inputs = trials.miniature.encode([scene.picture], [question])
    (full,) = trials.miniature.answer(inputs)
    with prune_visual_tokens(trials.miniature.model, budget=0.111, layer=2, **PER_QUERY) as session:
        (pruned,) = trials.miniature.answer(inputs)
    (kept,) = session.records[-1].kept_indices

    answer = trials.answer(shown, question, PRESET, scene)

    assert rows(answer)["right answer"] == (truth, truth)
    assert rows(answer)["answer"] == (full, pruned)
    assert rows(answer)["visual tokens"] == ("192", str(len(kept)))
    # 36 tokens of the base view come before the crops: 12 lines of 12 tokens and a newline, each 32 pixels high here.
    assert answer.kept is not None
    original = np.asarray(scene.shown)
    bright = [
        36 + 13 * row + column
        for row, column in product(range(12), range(12))
        if (answer.kept == original)[32 * row : 32 * row + 32, 32 * column : 32 * column + 32].all()
    ]
    newlines = set(range(36 + 12, 192, 13))
    assert bright == [index for index in kept.tolist() if index >= 36 and index not in newlines]


def test_a_larger_budget_or_another_layer_changes_what_is_kept_and_what_it_costs(
    trials: Trials, scene: Scene, shown: Path
) -> None:
    """Up to all tokens, whose answer is that of the model without pruning."""
    question = next(iter(scene.answers))
    few, more, late, every = (
        rows(trials.answer(shown, question, Choice(method="per-query", percent=percent, layer=layer), scene))
        for percent, layer in ((11.1, 2), (50.0, 2), (11.1, 6), (100.0, 2))
    )

    assert [each["visual tokens"][1] for each in (few, more, late, every)] == ["21", "96", "21", "192"]
    costs = [int(each["operations of the prefill"][1].removesuffix(" %")) for each in (few, more, late, every)]
    assert costs[0] < costs[1] < costs[3] == 100
    assert costs[0] < costs[2] < 100
    assert every["answer"][0] == every["answer"][1]


@pytest.mark.parametrize("method", ["iwp", "tome", "cdpruner", "pyramiddrop", "vtw"])
def test_methods_of_every_kind_answer(method: str, trials: Trials, scene: Scene, shown: Path) -> None:
    """One that merges, one of the vision tower, one of several stages, and one that takes no budget."""
    assert method in METHOD_NAMES

    answer = trials.answer(shown, "largest digit ?", Choice(method=method, percent=11.1, layer=2), scene)

    assert rows(answer)["answer"][1]
    assert int(rows(answer)["visual tokens"][1]) <= 21
    assert "right answer" not in rows(answer), "nobody asked this when the scene was drawn"


@pytest.mark.parametrize(
    ("question", "choice", "said"),
    [
        ("where is the cat ?", PRESET, "unknown word 'where'"),
        ("", PRESET, "is empty"),
        (None, PRESET, "is empty"),
        ("largest digit ?", Choice(method="fastv", percent=11.1, layer=0), "fastv: `layer` is 0"),
        ("largest digit ?", Choice(method="per-query", percent=11.1, layer=8), "per-query: `layer` is 8"),
        ("largest digit ?", Choice(method="per-query", percent=0.0, layer=2), "`budget` is 0"),
        ("largest digit ?", Choice(method="per-query", percent=101.0, layer=2), "`budget` is 1.01"),
        (
            "largest digit ?",
            Choice(method="guess", percent=11.1, layer=2),
            "'guess' is none, expected one of per-query",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_said(
    question: str | None, choice: Choice, said: str, trials: Trials, scene: Scene, shown: Path
) -> None:
    """In the words of the command line."""
    with pytest.raises(Refusal, match=said):
        trials.answer(shown, question, choice, scene)


def test_a_page_without_a_picture_or_with_a_file_that_is_none_is_told_so(trials: Trials, scene: Scene) -> None:
    """The picture can be taken away, and anything uploaded."""
    with pytest.raises(Refusal, match="there is no picture"):
        trials.answer(None, "largest digit ?", PRESET, scene)
    with pytest.raises(Refusal, match="is not an image"):
        trials.answer(Path(__file__), "largest digit ?", PRESET, scene)


@pytest.mark.parametrize("size", [(96, 96), (384, 384), (300, 120), (1000, 1)])
def test_pictures_of_your_own_are_answered_without_a_right_answer(
    size: tuple[int, int], trials: Trials, scene: Scene, tmp_path: Path
) -> None:
    """Also at a size that cannot be drawn, or at that of the scene."""
    Image.effect_noise(size, 60).save(tmp_path / "own.png")

    answer = trials.answer(tmp_path / "own.png", next(iter(scene.answers)), PRESET, scene)

    assert "right answer" not in rows(answer)
    assert answer.kept is None or answer.kept.shape == (size[1], size[0], 3)


@pytest.mark.usefixtures("small_decoder")
def test_the_saving_follows_the_choice() -> None:
    """All of 2,709 tokens beside those that stay; a choice that is refused does not stop the next one."""
    trials = Trials()

    saving = {name: pair for name, *pair in trials.saving(Choice(method="divprune", percent=10.0, layer=0))}
    with pytest.raises(Refusal, match="fastv: `layer` is 0"):
        trials.saving(Choice(method="fastv", percent=10.0, layer=0))
    again = {name: pair for name, *pair in trials.saving(Choice(method="vtw", percent=10.0, layer=4))}

    assert saving["visual tokens"] == ["2,709", "271"]
    assert again["visual tokens"] == ["2,709", "0"]
    assert saving["seconds to the first token"][0] == again["seconds to the first token"][0]


def test_the_layers_of_the_page_are_those_of_the_model(trials: Trials) -> None:
    """The slider ends at the last."""
    assert trials.miniature.model.config.text_config.num_hidden_layers == LAYERS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--browser", "--photo"], "leave --photo away"),
        (["--browser", "--output", "kept.png", "--question", "a ?"], "leave --output, --question away"),
        (["--port", "7860"], "it needs --browser"),
        (["--browser", "--image", "missing.png"], "'missing.png' cannot be read"),
        (["--browser", "--port", "0"], "Invalid value for '--port'"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a page is made, and whether or not Gradio is installed."""
    monkeypatch.setattr(demo, "find_spec", lambda _name: object())

    done = run(*arguments)

    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_a_missing_gradio_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line."""
    monkeypatch.setattr(demo, "find_spec", lambda _name: None)

    done = run("--browser")

    assert done.exit_code == 1
    assert done.output == "iwp demo: error: --browser needs Gradio: install iwp with its extra, '.[demo]' in a clone\n"


def run(*arguments: str) -> Any:
    """Run the command in this process."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["demo", *arguments])

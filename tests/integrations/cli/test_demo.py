"""`iwp demo` asks the trained miniature, or prunes the shipped photograph; either way it draws what stays."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the picture needs it")

from typer.testing import CliRunner

from iwp_cli.app import app
from iwp_cli.digits import METHODS, asked_miniature


def run(*arguments: Any) -> Any:
    """Run the command in this process."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["demo", *map(str, arguments)])


@pytest.mark.usefixtures("small_decoder")
def test_the_photograph_is_pruned_to_the_budget_and_drawn(tmp_path: Path) -> None:
    """2,709 tokens, of which both rules keep 11.1 %; the picture shows the photograph thrice."""
    done = run("--photo", "--output", tmp_path / "kept.png")

    assert done.exit_code == 0, done.output
    assert [line.split("│")[2:5] for line in done.output.splitlines() if "visual tokens" in line] == [
        [" 2709       ", " 301    ", " 301            "]
    ]
    assert "weights are random" in done.output
    with Image.open(tmp_path / "kept.png") as picture:
        assert picture.width > 3 * picture.height


@pytest.mark.usefixtures("small_decoder")
def test_another_photograph_can_be_given(tmp_path: Path) -> None:
    """A tall picture gives another number of crops, and tokens."""
    Image.effect_noise((200, 500), 60).convert("RGB").save(tmp_path / "tall.png")

    done = run("--photo", "--image", tmp_path / "tall.png", "--output", tmp_path / "kept.png")

    assert done.exit_code == 0, done.output
    assert "2709" not in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "missing.jpg"], "'missing.jpg' cannot be read: No such file"),
        (["--image", __file__], "is not an image that Pillow can read"),
        (["--output", "missing/kept.png"], "there is no folder 'missing'"),
        (["--output", "kept.txt"], "has no known ending"),
        (["--question", "largest digit?"], "a question of your own needs --image"),
        (["--seed", "3", "--photo"], "--seed is of the picture that is drawn"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(arguments: list[str], said: str) -> None:
    """A usage error, not a traceback."""
    done = run(*arguments)

    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def rows(output: str) -> list[list[str]]:
    """Return the cells of the printed table of answers, one list a question."""
    return [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line and "?" in line
    ]


@pytest.mark.usefixtures("small_decoder")
def test_the_trained_miniature_answers_a_fresh_picture(tmp_path: Path) -> None:
    """Three questions whose truth is known, three methods, and beside them what is saved of a photograph's tokens."""
    done = run("--seed", 14, "--output", tmp_path / "kept.png")

    assert done.exit_code == 0, done.output
    assert "21 of 192 visual tokens" in done.output
    table = rows(done.output)
    assert [row[0].split()[:2] for row in table] == [["color", "of"], ["which", "digit"], ["digit", "right"]]
    assert sum(row[1] == row[2] for row in table) >= 2, "a model that is right nine times in ten"
    assert all(len(row) == 3 + len(METHODS) for row in table)
    (tokens,) = [line.split("│")[2:4] for line in done.output.splitlines() if "visual tokens " in line and "│" in line]
    assert [cell.strip() for cell in tokens] == ["2,709", "301"]
    assert "seconds to the first token" in done.output
    with Image.open(tmp_path / "kept.png") as picture:
        assert picture.width > picture.height


def test_a_seed_draws_the_same_picture_and_answers_again() -> None:
    """And another one draws another."""
    first, again, other = (asked_miniature(None, None, seed) for seed in (14, 14, 15))

    assert first.picture == again.picture != other.picture
    assert [each.question for each in first.asked] == [each.question for each in again.asked]
    assert [each.full for each in first.asked] == [each.full for each in again.asked]


def test_the_picture_of_make_demo_is_answered_right_by_the_preset() -> None:
    """Its seed was chosen so that the few tokens kept are seen to be those that the question needs."""
    demo = asked_miniature(None, None, 14)

    assert [each.pruned["per-query preset"][0] for each in demo.asked] == [each.truth for each in demo.asked]


def test_the_trained_miniature_answers_questions_of_your_own(tmp_path: Path) -> None:
    """Any picture will do; nobody knows the truth then."""
    Image.effect_noise((200, 150), 60).save(tmp_path / "noise.png")

    done = run(
        "--image", tmp_path / "noise.png", "--question", "How many 3?", "--question", "Is there a 7?",
        "--output", tmp_path / "kept.png",
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    assert [row[:2] for row in rows(done.output)] == [["How many 3?", "?"], ["Is there a 7?", "?"]]


def test_a_word_that_the_miniature_does_not_know_is_named(tmp_path: Path) -> None:
    """A usage error that lists the known words."""
    Image.new("RGB", (96, 96)).save(tmp_path / "black.png")

    done = run("--image", tmp_path / "black.png", "--question", "Where is the cat?", "--output", tmp_path / "kept.png")

    assert done.exit_code == 2
    assert "unknown word 'where'" in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize("question", ["", " ", "<image>", "[bold]?", "largest digit ? <image>"])
def test_question_of_no_known_words_is_refused_in_one_line(question: str, tmp_path: Path) -> None:
    """An empty one and the placeholder too."""
    Image.new("RGB", (96, 96)).save(tmp_path / "black.png")

    done = run("--image", tmp_path / "black.png", "--question", question, "--output", tmp_path / "kept.png")

    assert done.exit_code == 2
    (line,) = done.output.strip().splitlines()
    assert line.startswith("iwp demo: error: --question: the question")


@pytest.mark.parametrize("size", [(1, 1), (1000, 1), (1, 1000), (3000, 40), (2, 3)])
def test_picture_of_any_shape_is_answered_or_named(size: tuple[int, int], tmp_path: Path) -> None:
    """Where the tokens cannot be drawn, the answers are printed and the picture is named."""
    Image.effect_noise(size, 60).save(tmp_path / "odd.png")

    done = run("--image", tmp_path / "odd.png", "--output", tmp_path / "kept.PNG")

    assert len(rows(done.output)) == 3
    if done.exit_code:
        assert done.exit_code == 2
        assert f"iwp demo: error: '{tmp_path}/odd.png': the visual tokens cannot be drawn" in done.output


@pytest.mark.usefixtures("small_decoder")
@pytest.mark.parametrize("size", [(1, 1), (1000, 1), (1, 1000)])
def test_photograph_of_any_shape_is_pruned_and_drawn(size: tuple[int, int], tmp_path: Path) -> None:
    """With the published geometry, of which every picture leaves something."""
    Image.effect_noise(size, 60).save(tmp_path / "odd.png")

    done = run("--photo", "--image", tmp_path / "odd.png", "--output", tmp_path / "kept.png")

    assert done.exit_code == 0, done.output
    assert (tmp_path / "kept.png").stat().st_size > 0

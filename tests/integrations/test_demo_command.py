"""`iwp demo` prunes the shipped photograph in a genuine model and draws what stays."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the picture needs it")

from typer.testing import CliRunner

from iwp_transformers.cli import demo as module
from iwp_transformers.cli.app import app

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 2}
whole_model = module.random_model


@pytest.fixture
def small_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo build a narrow decoder; views, crops and tokens stay those of the real one."""
    monkeypatch.setattr(module, "random_model", lambda: whole_model(**SMALL, num_key_value_heads=1))


def run(*arguments: Any) -> Any:
    """Run the command in this process."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["demo", *map(str, arguments)])


@pytest.mark.usefixtures("small_decoder")
def test_the_photograph_is_pruned_to_the_budget_and_drawn(tmp_path: Path) -> None:
    """2,709 tokens, of which both rules keep 11.1 %; the picture shows the photograph thrice."""
    done = run("--output", tmp_path / "kept.png")

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

    done = run("--image", tmp_path / "tall.png", "--output", tmp_path / "kept.png")

    assert done.exit_code == 0, done.output
    assert "2709" not in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "missing.jpg"], "'missing.jpg' cannot be read: No such file"),
        (["--image", __file__], "is not an image that Pillow can read"),
        (["--output", "missing/kept.png"], "there is no folder 'missing'"),
        (["--output", "kept.txt"], "has no known ending"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(arguments: list[str], said: str) -> None:
    """A usage error, not a traceback."""
    done = run(*arguments)

    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())

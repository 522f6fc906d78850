"""`iwp bench` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from iwp_cli.app import app
from tests.integrations.processors import coordinate_picture


def invoke(*arguments: object) -> Result:
    """Run the command in this process, on a wide terminal."""
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["bench", *map(str, arguments)])


@pytest.mark.usefixtures("without_torchvision")
def test_command_prints_and_writes_what_was_measured(weights: Path, tmp_path: Path) -> None:
    """Of a picture of one's own: every repeat in the file, medians with their spread in the table."""
    coordinate_picture(48, 64).save(tmp_path / "a.png")
    options = ["--image", tmp_path / "a.png", "--budget", 5, "--layer", 1, "--new-tokens", 2, "--repeats", 2]

    result = invoke(weights, *options, "--output", tmp_path / "bench.json")

    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "bench.json").read_text())
    assert (told["settings"], told["device"]) == ("budget 5, layer 1", "cpu")
    assert (told["eager"]["full"]["visual_tokens"], told["eager"]["pruned"]["visual_tokens"]) == (48, 5)
    assert len(told["eager"]["pruned"]["first_token_seconds"]) == 2
    assert "compiled" not in told
    for row in ("time to first token", "tokens a second", "memory beside the weights", "choosing, share of first"):
        assert row in result.output


@pytest.mark.usefixtures("without_torchvision")
def test_command_prints_json_alone_where_that_is_asked_for(weights: Path) -> None:
    """A program can read the standard output; without a picture, the shipped photograph is looked at."""
    result = invoke(weights, "--budget", 5, "--layer", 1, "--new-tokens", 1, "--repeats", 1, "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["eager"]["token_ratio"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "9"], "`layer` is 9, expected an int from 0 to 2"),
        (["--method", "guess"], "--method: 'guess' is none"),
        (["--output", "no/such/folder.json"], "there is no folder 'no/such'"),
    ],
)
@pytest.mark.usefixtures("without_torchvision")
def test_command_refuses_in_one_line(options: list[str], message: str, weights: Path) -> None:
    """The option is named, and what is allowed."""
    result = invoke(weights, *options)

    assert result.exit_code == 2, result.output
    (line,) = result.output.strip().splitlines()
    assert line.startswith("iwp bench: error: ")
    assert message in line

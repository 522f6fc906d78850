"""`iwp-train-miniature`: what it writes, how it goes on, and what it says to what it cannot do."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("typer", reason="the command line needs it")

import typer
from typer.testing import CliRunner

from iwp_miniature import cli
from iwp_miniature.architectures import architecture
from iwp_miniature.training import Recipe, Trainer

STEPS = ("--align-steps", 2, "--answer-steps", 2, "--threads", 1)


def run(*arguments: Any) -> Any:
    """Run the command in this process."""
    app = typer.Typer()
    app.command()(cli.train)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def said(done: Any) -> str:
    """Give what a command said, without frames and line breaks."""
    return " ".join(done.output.replace("│", " ").split())


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let steps and validations be about few pictures."""
    monkeypatch.setattr(cli, "Recipe", partial(Recipe, align_pictures=2, answer_pictures=2, questions=3))
    monkeypatch.setattr(cli, "answer_accuracy", lambda trainer: {"mean": trainer.step / 8})


@pytest.mark.usefixtures("few_pictures")
@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl"])
def test_a_run_writes_a_model_and_its_log(name: str, tmp_path: Path) -> None:
    """Weights, configuration, tokenizer and processor, and a log with the recipe, each validation and its losses.

    In bfloat16, as the recipe says.
    """
    done = run(name, tmp_path / "made" / "here", *STEPS, "--every", 2)

    assert done.exit_code == 0, done.output
    assert "validation: 50.0% right" in said(done)
    assert {"model.safetensors", "config.json", "tokenizer.json", "training.json"} <= {
        file.name for file in (tmp_path / "made" / "here").iterdir()
    }
    report = json.loads((tmp_path / "made" / "here" / "training.json").read_text())
    assert (report["architecture"], report["device"], report["threads"]) == (name, "cpu", 1)
    assert report["recipe"].items() >= {"seed": 0, "align_steps": 2, "answer_steps": 2, "questions": 3}.items()
    assert [entry["step"] for entry in report["log"]] == [2, 4]
    assert [entry["validation"]["mean"] for entry in report["log"]] == [0.25, 0.5]
    assert "alignment" in report["log"][0]
    assert "answers" in report["log"][1]


@pytest.mark.usefixtures("few_pictures", "in_single")
def test_a_stopped_run_goes_on_where_it_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command again ends with the weights and the log of a run that nobody stopped."""
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda trainer: stop() if trainer.step == 3 else step(trainer))
    stopped = run("llava-onevision", tmp_path / "stopped", *STEPS, "--every", 2)
    monkeypatch.setattr(Trainer, "train_step", step)

    done = run("llava-onevision", tmp_path / "stopped", *STEPS, "--every", 2)
    whole = run("llava-onevision", tmp_path / "whole", *STEPS, "--every", 2)

    assert (stopped.exit_code, done.exit_code, whole.exit_code) == (1, 0, 0), done.output
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("stopped", "whole")]
    assert states[0]["model"].keys() == states[1]["model"].keys()
    assert all(torch.equal(states[0]["model"][name], weight) for name, weight in states[1]["model"].items())
    logs = [json.loads((tmp_path / name / "training.json").read_text())["log"] for name in ("stopped", "whole")]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]] == [2, 4]


def stop() -> dict[str, float]:
    """End a run in the middle."""
    raise RuntimeError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["llava", "out"], ["llava-onevision", "qwen2.5-vl"]),
        (["llava-onevision"], ["Missing argument"]),
        (["llava-onevision", "out", "--device", "gpu"], ["--device", "'gpu' cannot be used here; expected cpu"]),
        (["llava-onevision", "out", "--align-steps", "0"], ["--align-steps", "1"]),
        (["llava-onevision", "out", "--every", "0"], ["--every", "1"]),
        (["llava-onevision", __file__], ["OUTPUT", "is a file"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said_before_the_work(arguments: list[str], words: list[str]) -> None:
    """A usage error that names what was wrong, not a traceback."""
    done = run(*arguments)

    assert done.exit_code == 2
    assert all(word in said(done) for word in words), done.output


def test_cuda_is_refused_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    done = run("llava-onevision", tmp_path / "out", "--device", "cuda")

    assert done.exit_code == 2
    assert "'cuda' cannot be used here; expected cpu" in said(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [("llava-onevision", ["--seed", 1], "'seed': 0"), ("qwen2.5-vl", [], "'llava-onevision'")],
    ids=["recipe", "architecture"],
)
def test_a_folder_of_another_run_is_refused(name: str, options: list[Any], word: str, tmp_path: Path) -> None:
    """Its state is left alone, and the message says what it holds."""
    recipe = Recipe(align_steps=2, answer_steps=2)
    Trainer(architecture("llava-onevision"), recipe).save(tmp_path / "checkpoint.pt")
    before = (tmp_path / "checkpoint.pt").read_bytes()

    done = run(name, tmp_path, *STEPS, *options)

    assert done.exit_code == 2
    assert "OUTPUT" in said(done)
    assert word in said(done)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before

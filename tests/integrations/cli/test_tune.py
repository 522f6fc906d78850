"""`iwp tune` as a user meets it: what it reads, what it writes, and how it says no."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText, VoxtralConfig
from typer.testing import CliRunner, Result

from iwp_cli import loading
from iwp_cli.app import app
from iwp_cli.dataset import Asked, EncodedSamples, read_samples
from iwp_cli.refusal import Refusal
from iwp_transformers import load_settings
from iwp_transformers.tuning import campaign
from tests.integrations.processors import PillowQwenProcessor, coordinate_picture, qwen2_5_vl_config

QUESTION = "what is this ?"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write a list of three samples, of which one has a damaged picture."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, width in {"a.png": 48, "b.png": 64}.items():
        coordinate_picture(48, width).save(folder / name)
    (folder / "c.png").write_text("no picture")
    lines = [{"image": f"{name}.png", "prompt": QUESTION} for name in "abc"]
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return folder


def invoke(*arguments: object) -> Result:
    """Run the command in this process, on a wide terminal."""
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["tune", *map(str, arguments)])


@pytest.mark.usefixtures("without_torchvision")
def test_command_writes_settings_figures_and_a_picture_and_names_what_is_broken(
    weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tried settings are in the table and the file; a second call measures nothing."""
    monkeypatch.setattr(campaign, "TURNS", 1)
    arguments = [weights, "--data", data, "--methods", "divprune,vtw", "--layers", "1", "--budgets", "0.9,4"]
    arguments += ["--output", tmp_path / "iwp.json", "--max-new-tokens", 2]

    result = invoke(*arguments)

    assert result.exit_code == 0, result.output
    for name in ("divprune, layer 1, 90%", "divprune, layer 1, 4", "vtw, layer 1", "all tokens"):
        assert sum(line.startswith(name) for line in result.output.splitlines()) == 1
    assert "broken       samples.jsonl:3: MediaError: " in result.output
    assert "c.png' is not an image that Pillow can read" in result.output
    told = json.loads((tmp_path / "iwp.json").read_text())
    assert (told["report"]["samples"], list(told["report"]["broken"])) == (2, ["samples.jsonl:3"])
    assert load_settings(tmp_path / "iwp.json")
    assert (tmp_path / "iwp.png").read_bytes().startswith(b"\x89PNG")
    measured = (tmp_path / "iwp.jsonl").read_bytes()
    assert invoke(*arguments).exit_code == 0
    assert (tmp_path / "iwp.jsonl").read_bytes() == measured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x" * 999], "x' does not exist, expected a file of JSON lines or a folder"),
        (["--data", "{data}", "--model", "x" * 999], "there is no folder"),
        (["--data", "{none}"], "none' does not exist, expected a file of JSON lines or a folder"),
        (["--data", "{empty}"], "empty' holds no samples"),
        (["--data", "{data}/a.png"], "a.png' cannot be read"),
        (["--data", "{lines}"], "'lines.jsonl:2' names '{tmp}/gone.png', which does not exist"),
        (["--data", "{data}", "--methods", "guess"], "'guess', expected some of per-query, above-chance, iwp"),
        (["--data", "{data}", "--layers", "two"], "--layers: 'two', expected numbers of layers between commas"),
        (["--data", "{data}", "--layers", "9"], "--layers: 9 cannot be tried: the model has 3 layers, numbered from 0"),
        (["--data", "{data}", "--budgets", "0.2,2.5"], "--budgets: `budget` is 2.5, expected"),
        (["--data", "{data}", "--tolerance", "2"], "`tolerance` is 2.0, expected a share"),
        (["--data", "{data}", "--minutes", "0"], "`minutes` is 0.0, expected a number above 0"),
        (["--data", "{data}", "--cost", "money"], "`cost` is 'money', expected 'time' or 'flops'"),
        (["--data", "{data}", "--output", "{none}/iwp.json"], "there is no folder"),
        (["--data", "{data}", "--device", "abacus"], "--device: 'abacus' cannot be used"),
        (["--data", "{data}", "--device", "meta"], "--device: 'meta' cannot be used: tensors there have no content"),
        (["--data", "{data}", "--model", "{audio}"], "which sees neither images nor videos"),
        (["--data", "{data}", "--model", "{none}"], "there is no folder"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_command_refuses_in_one_line_before_any_model_is_loaded(
    arguments: list[str], message: str, weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither processor nor weights are read."""
    for name in ("load_processor", "load_model"):
        monkeypatch.setattr(loading, name, lambda *_, **__: pytest.fail("something was loaded"))
    (tmp_path / "empty").mkdir()
    lines = [{"image": "data/a.png", "prompt": QUESTION}, {"image": "gone.png", "prompt": QUESTION}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    VoxtralConfig(audio_token_id=5, architectures=["VoxtralForConditionalGeneration"]).save_pretrained(
        tmp_path / "audio"
    )
    places = {name: tmp_path / name for name in ("none", "empty", "audio")}
    places |= {"data": data, "lines": tmp_path / "lines.jsonl", "tmp": tmp_path}
    given = [each.format(**places) for each in arguments]
    model = given[given.index("--model") + 1] if "--model" in given else weights
    rest = given[: given.index("--model")] if "--model" in given else given

    result = invoke(model, *(rest if "--output" in rest else [*rest, "--output", tmp_path / "iwp.json"]))

    assert result.exit_code in {1, 2}, result.output
    (line,) = result.output.strip().splitlines()
    assert line.startswith("iwp tune: error: ")
    assert message.format(**places) in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "'list.jsonl:1' is no JSON"),
        ("[]", "'list.jsonl:1' is a list, expected an object"),
        ('{"image": "a.png"}', "'list.jsonl:1' has no prompt: expected a text, or --prompt for all"),
        ('{"prompt": "?"}', "'list.jsonl:1' has no picture: expected image or video"),
        ('{"prompt": "?", "image": 3}', "'list.jsonl:1': image is 3, expected a path"),
    ],
)
def test_a_line_that_is_no_sample_is_named_with_what_it_lacks(line: str, message: str, tmp_path: Path) -> None:
    """The number of the line and what is expected there."""
    (tmp_path / "list.jsonl").write_text(line)

    with pytest.raises(Refusal) as refused:
        read_samples(tmp_path / "list.jsonl", None)
    assert message in str(refused.value)


def test_a_sample_is_a_line_of_the_file_whatever_its_text_holds(tmp_path: Path) -> None:
    """A line separator within JSON text ends no line, and a mark of byte order before the first one is no JSON."""
    (tmp_path / "a.png").write_bytes(b"x")
    prompts = ["one\u2028line", "the\u0085next\x0c"]
    lines = [json.dumps({"image": "a.png", "prompt": each}, ensure_ascii=False) for each in prompts]
    (tmp_path / "list.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())

    assert [sample.prompt for sample in read_samples(tmp_path / "list.jsonl", None)] == prompts


def test_a_prompt_that_is_null_is_none(tmp_path: Path) -> None:
    """The one for all stands in, as where there is no such key."""
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "list.jsonl").write_text('{"image": "a.png", "prompt": null}')

    (sample,) = read_samples(tmp_path / "list.jsonl", QUESTION)

    assert sample.prompt == QUESTION


def test_samples_of_a_list_and_of_a_folder_are_what_stands_there(tmp_path: Path) -> None:
    """Paths count from the list; in a folder a text file of the same name asks, or one prompt for all."""
    for name in ("a.png", "b.gif", "c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("why ?\n")
    (tmp_path / "notes.md").write_text("of no sample")

    found = read_samples(tmp_path, QUESTION)
    assert found == [
        Asked(name="a.png", prompt="why ?", images=(tmp_path / "a.png",), videos=()),
        Asked(name="b.gif", prompt=QUESTION, images=(), videos=(tmp_path / "b.gif",)),
        Asked(name="c.mp4", prompt=QUESTION, images=(), videos=(tmp_path / "c.mp4",)),
    ]
    with pytest.raises(Refusal, match=r"b\.gif' has no question: expected one in '.*b\.txt', or --prompt"):
        read_samples(tmp_path, None)

    line: dict[str, Any] = {"images": ["a.png"], "video": "c.mp4", "file_name": "b.gif"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line))
    (listed,) = read_samples(tmp_path, QUESTION)
    assert [path.name for path in (*listed.images, *listed.videos)] == ["a.png", "b.gif", "c.mp4"]


def test_samples_are_encoded_as_generate_encodes_them(data: Path) -> None:
    """One row of ids, and as many placeholders as the picture has merged patches."""
    config = qwen2_5_vl_config()
    samples: Sequence[Any] = EncodedSamples(read_samples(data, None), PillowQwenProcessor(config), config, 4)

    assert len(samples) == 3
    assert samples[1]["input_ids"].shape[0] == 1
    assert int((samples[1]["input_ids"] == config.image_token_id).sum()) == 6 * 8


def test_the_weights_are_of_a_model_that_sees(weights: Path) -> None:
    """The fixture is what these tests take it for."""
    assert type(AutoModelForImageTextToText.from_pretrained(weights)).__name__.startswith("Qwen2_5_VL")

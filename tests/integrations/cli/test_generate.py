"""`iwp generate` as a user meets it: what it prints, what it writes, and how it says no."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    VoxtralConfig,
)
from typer.testing import CliRunner, Result

from iwp_cli import loading, pruning
from iwp_cli.app import app
from iwp_cli.commands import generate as command
from iwp_core import MMR, PCMMR, Strategy, TopK
from iwp_transformers import PruningSession, prune_visual_tokens
from iwp_transformers.families import _inference
from iwp_transformers.media.images import read_image
from iwp_transformers.presets import PER_QUERY
from tests.integrations.processors import (
    PillowQwenProcessor,
    coordinate_picture,
    llava_processor,
    onevision_config,
    qwen2_5_vl_config,
    whole_processor,
)
from tests.models.factory import tiny_model

ROOT = Path(__file__).parents[3]
QUESTION = "what is this ?"
needs_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="the processors' video half needs torchvision, which is not installed"
)

# Both templates put the pictures before the words, as those of the checkpoints do.
ONEVISION_TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message.role }} {% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<{{ part.type }}> {% endif %}{% endfor %}<|im_end|> "
    "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
QWEN_TEMPLATE = ONEVISION_TEMPLATE.replace("<{{ part.type }}>", "<|vision_start|><|{{ part.type }}_pad|><|vision_end|>")

CHECKPOINTS: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "llava_onevision": (onevision_config, LlavaOnevisionForConditionalGeneration, ONEVISION_TEMPLATE),
    "qwen2_5_vl": (qwen2_5_vl_config, Qwen2_5_VLForConditionalGeneration, QWEN_TEMPLATE),
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Image file."""
    path = tmp_path / "picture.png"
    coordinate_picture(48, 64).save(path)
    return path


def invoke(*arguments: object) -> Result:
    """Run the command in this process, on a wide terminal."""
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["generate", *map(str, arguments)])


def row(output: str, name: str) -> list[str]:
    """Cells of one row of the printed table."""
    (line,) = [line for line in output.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.strip("│").split("│")[1:]]


def spoken(model: Any, processor: Any, text: str, images: Sequence[Image.Image]) -> str:
    """Answer of the model as it is, by the library's own call."""
    inputs = processor(text=[text], images=[list(images)], return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    answer: str = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer


@needs_torchvision
@pytest.mark.parametrize("family", CHECKPOINTS)
def test_command_answers_from_a_local_folder(family: str, tmp_path: Path, picture: Path) -> None:
    """As a program of its own, offline: both answers, tokens, times, memory, and the picture."""
    config, model_class, template = CHECKPOINTS[family]
    torch.manual_seed(0)
    model = model_class(config()).eval()
    processor = whole_processor(model.config, template)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    expected = spoken(model, processor, text, [read_image(picture)])
    ids = processor(text=[text], images=[[read_image(picture)]], return_tensors="pt")["input_ids"]
    total = int((ids == model.config.image_token_id).sum())
    # Importing the tests' package first mends a torchvision that was built for another PyTorch.
    program = "import tests.integrations; from iwp_cli import main; main()"
    options: list[Any] = [
        "--image",
        picture,
        "--prompt",
        QUESTION,
        "--picture",
        tmp_path / "kept.png",
        "--local-files-only",
    ]
    options += ["--budget", "0.3", "--layer", "1", "--compare", "--max-new-tokens", "5"]

    run = subprocess.run(
        [sys.executable, "-c", program, "generate", "--model", tmp_path / "model", *options],
        env={**os.environ, "COLUMNS": "300", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert row(run.stdout, "answer")[0] == (expected.strip() or "(nothing)")
    assert row(run.stdout, "visual tokens")[0].startswith(f"{total} of {total}")
    assert row(run.stdout, "visual tokens")[1].startswith(f"{int(0.3 * total + 0.5)} of {total}")
    with Image.open(tmp_path / "kept.png") as drawn:
        assert drawn.width > 500


@needs_torchvision
def test_command_looks_at_videos(tmp_path: Path) -> None:
    """Frames of a folder and of an array reach the model, and its picture."""
    config, frames = qwen2_5_vl_config(), tmp_path / "frames"
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    whole_processor(config).save_pretrained(tmp_path / "model")
    frames.mkdir()
    for number in range(8):
        coordinate_picture(32, 48, number / 8).save(frames / f"{number}.png")
    np.save(tmp_path / "video.npy", np.zeros((4, 32, 48, 3), dtype=np.uint8))

    result = invoke(
        *("--model", tmp_path / "model", "--video", frames, "--video", tmp_path / "video.npy", "--frames", 4),
        *("--prompt", QUESTION, "--budget", 5, "--layer", 1, "--max-new-tokens", 2, "--picture", tmp_path / "kept.svg"),
    )

    assert result.exit_code == 0, result.output
    # Two steps a video, of 4 x 6 merged patches each.
    assert row(result.output, "visual tokens") == ["5 of 96 (5.2%)"]
    assert (tmp_path / "kept.svg").exists()


@pytest.mark.usefixtures("without_torchvision")
def test_command_compares_with_the_model_as_it_is(weights: Path, picture: Path) -> None:
    """The left answer is the library's own, the kept tokens are the budget's share, and the cache shrinks by theirs."""
    config = qwen2_5_vl_config()
    model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(weights)
    text = f"<|vision_start|><|image_pad|><|vision_end|>\n{QUESTION}"
    expected = spoken(model, PillowQwenProcessor(config), text, [read_image(picture)])

    result = invoke(
        *("--model", weights, "--image", picture, "--prompt", QUESTION, "--budget", 0.3, "--layer", 1, "--compare"),
        *("--max-new-tokens", 5),
    )

    assert result.exit_code == 0, result.output
    assert row(result.output, "answer")[0] == (expected.strip() or "(nothing)")
    assert row(result.output, "visual tokens") == ["48 of 48 (100.0%)", "14 of 48 (29.2%)"]
    # Keys and values, one head of width 8 in float32: 2 * 8 * 4 bytes a token and
    # layer, for 54 tokens in three layers (10,368 bytes), of which two hold 34 fewer (6,016).
    assert row(result.output, "KV cache") == ["10.4 kB after prefill", "6.0 kB after prefill"]


@pytest.mark.usefixtures("without_torchvision")
def test_command_with_the_whole_budget_answers_as_the_model_does(weights: Path, picture: Path) -> None:
    """A share of 1.0 changes nothing."""
    result = invoke(
        *("--model", weights, "--image", picture, "--prompt", QUESTION, "--budget", "1.0", "--layer", 1, "--compare"),
        *("--max-new-tokens", 5, "--strategy", "top-k"),
    )

    left, right = row(result.output, "answer")
    assert left == right


@pytest.mark.parametrize(("name", "strategy"), [("pc-mmr", PCMMR()), ("mmr", MMR()), ("top-k", TopK())])
@pytest.mark.usefixtures("without_torchvision")
def test_command_hands_its_options_on(
    name: str, strategy: Strategy, weights: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strategy, budget, layer, number format and attention are those of the command line."""
    seen: dict[str, Any] = {}

    def prune(model: Any, **options: object) -> PruningSession:
        seen.update(options, dtype=model.dtype, attention=model.config._attn_implementation)
        return prune_visual_tokens(model, budget=1.0, layer=1)

    monkeypatch.setattr(pruning, "prune_visual_tokens", prune)

    invoke(
        *("--model", weights, "--image", picture, "--prompt", QUESTION, "--budget", "7", "--layer", "2"),
        *("--strategy", name, "--dtype", "bfloat16", "--attention", "eager", "--max-new-tokens", "1"),
    )

    expected = {"budget": 7, "layer": 2, "strategy": strategy, "dtype": torch.bfloat16, "attention": "eager"}
    assert seen == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"budget": 0.222, "layer": 4}),
        (["--method", "divprune"], {"budget": 0.222, "method": "divprune"}),
        (["--method", "vtw", "--layer", "1"], {"layer": 1, "method": "vtw"}),
        (["--method", "per-query", "--budget", "5"], {"budget": 5, **PER_QUERY}),
        (["--settings", "{file}"], {"budget": 3, "layer": 1, "method": "fastv"}),
    ],
)
def test_command_prunes_by_a_method_or_a_file_of_settings(
    options: list[str], expected: dict[str, Any], weights: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the file or follows from the method is all that pruning is told."""
    file = picture.with_name("iwp.json")
    file.write_text('{"settings": {"budget": 3, "layer": 1, "method": "fastv"}, "report": {}}')
    seen: dict[str, Any] = {}
    monkeypatch.setattr(pruning, "prune_visual_tokens", lambda _model, **given: seen.update(given) or 1 / 0)
    monkeypatch.setattr(loading.Checkpoint, "load", lambda self: (None, SimpleNamespace(config=None, dtype=None)))
    monkeypatch.setattr(command, "encode", lambda *_: SimpleNamespace(to=lambda *_: {}))

    given = [each.format(file=file) for each in options]
    invoke("--model", weights, "--image", picture, "--prompt", QUESTION, *given)

    assert seen == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--image", "{missing}/x.png"], 2, r"x\.png' cannot be read: No such file"),
        (["--image", "{text}"], 2, r"is not an image that Pillow can read"),
        (
            ["--video", "{missing}"],
            2,
            r"does not exist, expected a video file, an animation, a folder",
        ),
        ([], 2, r"give one or more of --image and --video"),
        (["--image", "{picture}", "--budget", "1.5"], 2, r"`budget` is 1\.5, expected"),
        (["--image", "{picture}", "--budget", "0"], 2, r"`budget` is 0, expected"),
        (["--image", "{picture}", "--budget", "some"], 2, r"'some' is no number, expected a share"),
        (["--image", "{picture}", "--layer", "3"], 2, r"`layer` is 3, expected an int from 0 to 2"),
        (["--image", "{picture}", "--device", "abacus"], 2, r"'abacus' cannot be used"),
        (["--image", "{picture}", "--picture", "{missing}/x.png"], 2, r"there is no folder"),
        (["--image", "{picture}", "--picture", "x.docx"], 2, r"'x\.docx' has no known ending, expected \.png"),
        (["--image", "{picture}", "--strategy", "guess"], 2, r"'pc-mmr', 'mmr', 'top-k'"),
        (
            ["--image", "{picture}", "--method", "guess"],
            2,
            r"--method: 'guess' is none, expected one of per-query, above-chance, iwp",
        ),
        (["--image", "{picture}", "--method", "iwp", "--strategy", "mmr"], 2, r"--strategy is of the paper's rule"),
        (["--image", "{picture}", "--settings", "{missing}"], 2, r"--settings '.*' cannot be read: No such file"),
        (["--image", "{picture}", "--settings", "{text}"], 2, r"--settings: .* is no JSON"),
        (
            ["--image", "{picture}", "--settings", "{text}", "--layer", "1"],
            2,
            r"and --layer as well: give one or the oth",
        ),
        (
            ["--image", "{picture}", "--model", "{missing}"],
            1,
            r"there is no folder '.*': expected a folder with a model",
        ),
        (
            ["--image", "{picture}", "--model", "{bert}"],
            1,
            r"bert' is refused: .* BertModel, which cannot be pruned: its config",
        ),
        (["--image", "{picture}", "--model", "{empty}"], 1, r"empty' has no config\.json"),
        (["--image", "{picture}", "--model", "{audio}"], 1, r"VoxtralFor\w+, which sees neither images nor videos"),
        (["--image", "{picture}", "--attention", "psychic"], 1, r"cannot be loaded: .*psychic"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
@pytest.mark.usefixtures("without_torchvision")
def test_command_refuses_with_one_clear_sentence(
    arguments: list[str], code: int, message: str, weights: Path, picture: Path, tmp_path: Path
) -> None:
    """Status 2 for an option that cannot be, 1 for a model that cannot be loaded; never a traceback."""
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    places = {"missing": tmp_path / "missing", "text": tmp_path / "notes.png", "picture": picture}
    VoxtralConfig(audio_token_id=5, architectures=["VoxtralForConditionalGeneration"]).save_pretrained(
        tmp_path / "audio"
    )
    places |= {name: tmp_path / name for name in ("bert", "empty", "audio")}
    model = [] if "--model" in arguments else ["--model", weights]

    result = invoke("--prompt", QUESTION, *model, *(argument.format(**places) for argument in arguments))

    assert result.exit_code == code, result.output
    assert re.search(message, " ".join(re.sub(r"[│\s]+", " ", result.output).split()))
    assert isinstance(result.exception, SystemExit)


def test_command_serves_a_model_without_a_file_of_its_own_and_warns_as_the_library_does(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLaVA-1.5: the answer comes with one line that names what was found."""
    _inference._warn_once.cache_clear()
    model = tiny_model("llava")
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(loading, "load_processor", lambda *_, **__: llava_processor(model.config))

    result = invoke(
        *("--model", tmp_path / "model", "--image", picture, "--prompt", QUESTION, "--budget", 0.25, "--layer", 1),
        *("--max-new-tokens", 2),
    )

    assert result.exit_code == 0, result.output
    assert row(result.output, "visual tokens") == ["4 of 16 (25.0%)"]
    assert "pixel_values at `image_token_i" in result.stderr
    assert result.stderr.startswith("iwp generate: warning: LlavaForConditionalGeneration is served by what was found")
    assert len(result.stderr.splitlines()) == 1

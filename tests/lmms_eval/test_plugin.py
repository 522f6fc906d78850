"""The model `iwp` within lmms-eval: its answers are those of the library called directly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is in an environment of its own: make test-lmms-eval")

import torch
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import make_table
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from iwp_cli.app import app
from iwp_lmms_eval import versions
from iwp_lmms_eval.digits import TASK, DigitsTask, digits_task
from iwp_lmms_eval.model import PrunedModel
from iwp_lmms_eval.questions import SampleError
from iwp_lmms_eval.videos import read_frames
from iwp_miniature import Example, architecture, draw_examples
from iwp_miniature.miniature import miniature_folder
from iwp_transformers import prune_visual_tokens
from iwp_transformers.presets import PER_QUERY
from tests.pages import python_blocks

MINIATURES = ("llava-onevision", "qwen2.5-vl")
BUDGETS = (1.0, 0.222, 0.111)
OPTIONS = {"max_new_tokens": 2, "do_sample": False}


@cache
def examples() -> tuple[Example, ...]:
    """Draw 36 questions of all kinds on pictures of seven sizes."""
    return tuple(draw_examples(architecture("qwen2.5-vl"), split="test", per_kind=2, seed=11))


@cache
def loaded(name: str) -> tuple[Any, Any]:
    """Load a miniature and its processor as any user of Transformers does."""
    folder = miniature_folder(name)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(folder)


def answered(name: str, images: Sequence[Image.Image], question: str, pruning: dict[str, Any]) -> str:
    """Ask a miniature through the library alone, one question at a time."""
    model, processor = loaded(name)
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad(), prune_visual_tokens(model, **pruning):
        ids = model.generate(**inputs, **OPTIONS)
    return str(processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def evaluated(task: DigitsTask, arguments: str, *, batch_size: int = 8, model: Any = "iwp") -> dict[str, Any]:
    """Evaluate a task as the command of lmms-eval does."""
    results: dict[str, Any] = simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=[task],
        task_manager=TaskManager(include_defaults=False, model_name="iwp"),
        batch_size=batch_size,
        bootstrap_iters=0,
    )
    return results


def answers(results: dict[str, Any]) -> list[str]:
    """Return the answers of a result, in the order of the documents."""
    samples = sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0] for sample in samples]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", MINIATURES)
def test_answers_equal_those_of_the_library(name: str, budget: float) -> None:
    """Batches of eight with left padding and pictures of several sizes answer what each question alone is answered."""
    task = digits_task(examples())
    documents = task.dataset["test"]
    assert len({document["image"].size for document in documents.select(range(8))}) > 1

    results = evaluated(task, f"pretrained={miniature_folder(name)},dtype=float32,budget={budget},layer=2")

    alone = [answered(name, [each["image"]], each["question"], {"budget": budget, "layer": 2}) for each in documents]
    assert answers(results) == alone
    assert len(set(alone)) > 5


def test_stages_methods_and_presets_reach_the_library() -> None:
    """What ``--model_args`` says is what the library is called with."""
    ways: dict[str, dict[str, Any]] = {
        "method=divprune,budget=0.5:0.1,layer=2:4": {"method": "divprune", "budget": (0.5, 0.1), "layer": (2, 4)},
        "preset=per-query,budget=12,layer=3": {"budget": 12, "layer": 3, **PER_QUERY},
    }
    for arguments, pruning in ways.items():
        task = digits_task(examples()[::3])
        results = evaluated(task, f"pretrained={miniature_folder('qwen2.5-vl')},dtype=float32,{arguments}")

        alone = [answered("qwen2.5-vl", [each["image"]], each["question"], pruning) for each in task.dataset["test"]]
        assert answers(results) == alone, arguments


def test_the_table_shows_tokens_seconds_and_memory(tmp_path: Path) -> None:
    """Kept tokens, tokens layer by layer, time and memory stand beside the accuracy, and in the JSON."""
    task = digits_task(draw_examples(architecture("llava-onevision"), split="test", per_kind=1, seed=3))

    results = evaluated(
        task, f"pretrained={miniature_folder('llava-onevision')},budget=48:24,layer=2:4,attn_implementation=eager"
    )

    told = results["throughput"]
    assert told["avg_visual_tokens"] == 192
    assert told["avg_kept_visual_tokens"] == 24
    layers = {name.removeprefix("avg_visual_tokens_in_"): told[name] for name in told if "_layers_" in name}
    assert layers == {"layers_0_to_1": 192, "layers_2_to_3": 48, "layers_4_to_7": 24}
    assert told["avg_seconds"] > told["avg_first_token_seconds"] > told["avg_selection_seconds"] > 0
    table = make_table(results)
    for name in ("accuracy", "avg_kept_visual_tokens", "avg_visual_tokens_in_layers_2_to_3", "avg_peak_memory_mib"):
        assert name in table
    assert json.dumps(results["throughput"])


class Asking:
    """Requests of lmms-eval about documents of one's own, and the model that is asked."""

    def __init__(self, name: str = "qwen2.5-vl", **arguments: Any) -> None:
        pruning = {"budget": 0.3, "layer": 2} | arguments
        self.model = PrunedModel(
            str(miniature_folder(name)), dtype="float32", device_map="cpu", batch_size=4, **pruning
        )

    def __call__(self, documents: Sequence[Any], **stated: Any) -> list[str]:
        """Ask about documents, each (pictures, question), a picture that is an error raising it."""
        self.model.task_dict = {"task": {"test": documents}}
        requests = [
            Request(("", messages_of, dict(OPTIONS) | stated, place, "task", "test")) for place in range(len(documents))
        ]
        return [each.text for each in self.model.generate_until(requests)]


class Request:
    """What the model reads of a request."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args


def messages_of(document: tuple[Sequence[Image.Image], str]) -> list[dict[str, Any]]:
    """Return the chat of a document."""
    images, question = document
    content = [{"type": "image", "url": image} for image in images]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


@pytest.mark.parametrize("name", MINIATURES)
def test_several_pictures_and_none_share_a_batch(name: str) -> None:
    """Samples with no, one and two pictures are answered as each is alone."""
    first, second = (each.scene.image for each in examples()[:2])
    documents = [([first], "largest digit ?"), ([], "how many 3 ?"), ([second, first], "largest digit ?")]

    told = Asking(name)(documents)

    pruning = {"budget": 0.3, "layer": 2}
    assert told == [answered(name, images, question, pruning) for images, question in documents]


def test_frames_of_a_video_are_asked_about() -> None:
    """A video is answered as the library answers it, all frames that the task gives."""
    frames = [each.scene.image.resize((64, 64)) for each in examples()[:4]]
    asking, (model, processor) = Asking(), loaded("qwen2.5-vl")
    asking.model._answerer.encoder.processor.chat_template = "{{ '<begin><video> largest digit ?' }}"
    inputs = processor(
        text=["<begin><video> largest digit ?"], videos=[frames], do_sample_frames=False, return_tensors="pt"
    )
    with torch.no_grad(), prune_visual_tokens(model, budget=0.3, layer=2) as session:
        ids = model.generate(**inputs, **OPTIONS)

    asking.model.task_dict = {"task": {"test": [[{"role": "user", "content": [{"type": "video", "url": frames}]}]]}}
    (told,) = asking.model.generate_until([Request(("", lambda each: each, OPTIONS, 0, "task", "test"))])

    assert told.text == processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert told.token_counts.input_tokens == inputs["input_ids"].shape[1]
    assert asking.model.figures.kept_tokens == len(session.records[-1].kept[0]) > 0


def test_frames_are_spread_over_a_file(tmp_path: Path) -> None:
    """Of a video file as many frames are read as asked, from the first to the last."""
    av = pytest.importorskip("av", reason="video files need PyAV")
    path = str(tmp_path / "grey.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for level in range(0, 200, 10):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), (level, level, level)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    frames, metadata = read_frames(path, 3)

    assert metadata.frames_indices.tolist() == [0, 10, 19]
    assert [round(float(frame.mean()), -1) for frame in frames] == [0, 100, 190]


def test_an_answer_ends_at_the_word_that_the_task_names() -> None:
    """`until` is honoured, and ends the answer before the word."""
    colour = next(each for each in examples() if each.question.kind == "color")
    document = ([colour.scene.image], colour.question.text)
    (whole,) = Asking(budget=1.0)([document])
    end = whole[-2:]

    assert Asking(budget=1.0)([document], until=[end]) == [whole[: whole.index(end)]]


def test_a_sample_that_fails_raises_and_is_named() -> None:
    """No answer is swallowed: the error says which document of which task it was."""
    documents = [([examples()[0].scene.image], "largest digit ?"), (["no picture.png"], "largest digit ?")]

    with pytest.raises(SampleError, match=r"document 1 of task 'task', split 'test' cannot be answered: FileNotFound"):
        Asking()(documents)


def test_a_killed_run_goes_on_from_its_journal(tmp_path: Path) -> None:
    """What was answered before is not asked again; answers and figures are those of an uninterrupted run."""
    documents: list[Any] = [([each.scene.image], each.question.text) for each in examples()[:10]]
    whole = Asking()
    expected = whole(documents)
    journal = str(tmp_path / "answers.jsonl")
    broken = [*documents[:8], (["no picture.png"], "largest digit ?"), documents[9]]
    with pytest.raises(SampleError):
        Asking(journal=journal)(broken)

    again = Asking(journal=journal)
    asked: list[int] = []
    answer = again.model._answerer.answer
    object.__setattr__(again.model._answerer, "answer", lambda c, o: (asked.append(len(c)), answer(c, o))[1])

    assert again(documents) == expected
    assert asked == [2]
    assert again.model.figures.kept_tokens == whole.model.figures.kept_tokens


def test_answers_of_other_versions_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that a run with another version of a package began is refused, with both versions."""
    journal = str(tmp_path / "answers.jsonl")
    Asking(journal=journal)
    monkeypatch.setattr(versions, "version", lambda name: f"newer {name}")

    with pytest.raises(ValueError, match=r"versions transformers was '5\..*' and is 'newer transformers'"):
        Asking(journal=journal)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"method": "none", "budget": 0.1}, ValueError, "`method` is 'none'"),
        ({"budget": 0.1, "layer": 99}, ValueError, "`layer` is 99, expected an int from 0 to 7"),
        ({"budget": 0.1, "batch_size": "auto"}, ValueError, "`batch_size` is 'auto'"),
        ({"max_new_tokens": 0}, ValueError, "`max_new_tokens` is 0, expected an integer of at least 1"),
        ({"max_num_frames": 8.5}, ValueError, r"`max_num_frames` is 8\.5, expected an integer of at least 1"),
        ({"max_pixels": "many"}, ValueError, "`max_pixels` is 'many', expected an integer of at least 1"),
        ({"budget": 0.1, "colour": 3}, TypeError, "`colour` is no argument"),
    ],
)
def test_a_mistake_is_told_before_weights_are_loaded(
    arguments: dict[str, Any], kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration tells enough."""
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", None)

    with pytest.raises(kind, match=message):
        PrunedModel(str(miniature_folder("qwen2.5-vl")), **arguments)


def test_the_miniatures_are_reproduced_once(tmp_path: Path) -> None:
    """The command measures both miniatures through lmms-eval, and a second run measures nothing."""
    command = ["reproduce", "--miniature", "--method", "IWP", "--budget", "0.222", "--limit", "18"]
    command += ["--output", str(tmp_path)]

    first, second = (CliRunner().invoke(app, command) for _ in range(2))

    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr
    assert first.stdout == second.stdout
    assert "relative average" in first.stdout
    assert second.stderr.count("measured before") == 4
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["cells"]) == 4
    assert all(cell["figures"]["samples"] == 18 for cell in content["cells"].values())


def test_every_task_model_and_option_of_the_papers_resolves() -> None:
    """The real tables are one command away for who has the weights."""
    answer = CliRunner().invoke(
        app, ["reproduce", "2", "3", "4", "5", "6", "E.1", "E.2", "E.3", "E.4", "E.5", "--dry-run"]
    )

    assert answer.exit_code == 0, answer.stderr
    assert "cannot be measured" not in answer.stderr
    assert "nothing was downloaded" in answer.stdout


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever pastes it gets an accuracy, and the tokens that were kept."""
    (block,) = python_blocks("docs/evaluation.md")

    exec(compile(block, "evaluation.md", "exec"), {})  # the example is the thing tested

    accuracy, kept = capsys.readouterr().out.splitlines()[-1].split()
    assert 0.5 < float(accuracy) <= 1.0
    assert 24 <= float(kept) <= 40

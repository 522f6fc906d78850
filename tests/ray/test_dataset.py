"""Whole data sets: every row once, with the answer that one process gives it, whatever dies on the way."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from iwp_miniature import load_miniature
from iwp_ray import MapReport, prune_dataset, prune_to_parquet
from iwp_ray.actor import PruningActor, Task
from iwp_ray.attempts import Attempts
from iwp_transformers import prune_visual_tokens
from tests.ray.conftest import ROWS, write_lines
from tests.ray.miniature_loader import DEADLY, MiniatureLoader, fails_to_load

Rows = Sequence[Mapping[str, Any]]
Answers = Mapping[Any, tuple[str, list[int]]]
BUDGET, LAYER, LAYERS = 0.222, 2, 8
SETTINGS: dict[str, Any] = {"budget": BUDGET, "layer": LAYER, "max_new_tokens": 2}
BATCH, STOPPED, KILLED = 4, 16, 32
# Rows before those that are broken, which share a batch with the last of them, and come after the signal.
BEFORE = 81

pytestmark = pytest.mark.usefixtures("cluster")

# What is wrong with a row, and what is said of it; of lines that hold no row, the number is their name.
BROKEN: dict[str, tuple[Any, str]] = {
    "missing": ({"image": "missing.png", "prompt": "How many 3?"}, r"missing\.png' cannot be read: No such file"),
    "damaged": ({"image": "damaged.png", "prompt": "How many 3?"}, r"damaged\.png' is not an image"),
    "thin": ({"image": "thin.png", "prompt": "How many 3?"}, r"thin\.png' has 1000 x 1 pixels, which the model's"),
    "silent": ({"image": "thin.png"}, "the row has no `prompt`, and none was given"),
    "blind": ({"prompt": "How many 3?"}, "the row holds neither `image` nor `video`"),
    "both": ({"image": "a", "video": "b", "prompt": ""}, "the row holds both `image` and `video`"),
    "number": ({"image": 7, "prompt": ""}, "`image` is 7, expected text"),
    "rows.jsonl:89": ("{no json", "it is no JSON"),
    "rows.jsonl:90": ("[1]", "it holds a list, expected an object"),
    "deadly": ({"image": "fine.png", "prompt": DEADLY}, "the process that worked on this row alone died 2 times"),
}


@dataclass(frozen=True)
class Mapped:
    """What a run left that was stopped, gone on with, and lost a process in the middle."""

    source: Path
    output: Path
    loader: MiniatureLoader
    first: Mapping[Any, Mapping[str, Any]]
    both: Mapping[Any, Mapping[str, Any]]
    report: MapReport
    processes: int


@pytest.fixture(scope="module")
def mapped(questions: Rows, tmp_path_factory: pytest.TempPathFactory) -> Mapped:
    """Rows and those that are broken, of which one kills; stopped once, and a process killed in the middle."""
    folder = tmp_path_factory.mktemp("mapped")
    source, loader = folder / "rows.jsonl", MiniatureLoader(folder / "processes")
    loader.folder.mkdir()
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (1000, 1)).save(folder / "thin.png")
    Image.new("RGB", (96, 96)).save(folder / "fine.png")
    bad = [row if isinstance(row, str) else {**row, "id": name} for name, (row, _) in BROKEN.items()]
    fine = [{**row, "id": f"row {row['id']}"} for row in questions]
    write_lines(source, [*fine[:BEFORE], *bad, *fine[BEFORE:]])
    killed: list[int] = []

    def stop(report: MapReport) -> None:
        if report.done >= STOPPED:
            raise KeyboardInterrupt

    def kill_one(report: MapReport) -> None:
        for file in sorted(loader.folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True):
            if report.done >= KILLED and not killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(file.name), signal.SIGKILL)
                    killed.append(int(file.name))

    arguments = {"model": loader, "batch_size": BATCH, **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        prune_to_parquet(source, folder / "out", progress=stop, actors=1, **arguments)
    first = written(folder / "out")
    (folder / "out" / "part-1.parquet.unfinished").touch()
    report = prune_to_parquet(source, folder / "out", progress=kill_one, actors=2, **arguments)
    assert killed
    processes = len(list(loader.folder.iterdir()))
    return Mapped(source, folder / "out", loader, first, written(folder / "out"), report, processes)


def written(folder: Path) -> dict[Any, dict[str, Any]]:
    """Rows of answers on disk, by their ids; fails where an id is there twice."""
    rows = pq.read_table(folder).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def by_one_process(rows: Rows, together: int) -> Answers:
    """Answers and kept tokens of rows by their ids, by the library called directly on pictures of one size each."""
    miniature, answers, sizes = load_miniature("qwen2.5-vl"), {}, {}
    for row in rows:
        with Image.open(row["image"]) as image:
            sizes.setdefault(image.size, []).append((row, image.convert("RGB")))
    with prune_visual_tokens(miniature.model, budget=BUDGET, layer=LAYER) as session:
        for group in sizes.values():
            for start in range(0, len(group), together):
                asked, images = zip(*group[start : start + together], strict=True)
                words = miniature.answer(miniature.encode(images, [row["prompt"] for row in asked]))
                kept = [indices.tolist() for indices in session.records[-1].kept_indices]
                answers |= {row["id"]: found for row, *found in zip(asked, words, kept, strict=True)}
    return {identity: (word, kept) for identity, (word, kept) in answers.items()}


def test_rows_are_all_there_once_though_a_process_was_killed_in_the_middle(mapped: Mapped, questions: Rows) -> None:
    """Answers and kept tokens are those of one process."""
    expected = by_one_process(questions, together=20)

    found = {number: mapped.both[f"row {number}"] for number in expected}

    assert len(expected) == ROWS
    assert len(mapped.both) == ROWS + len(BROKEN)
    # One of the first run, two of the second, and three for those that the deadly row and the signal killed.
    assert mapped.processes >= 6
    assert {row["error"] for row in found.values()} == {None}
    assert {number: (row["answer"], row["kept_indices"]) for number, row in found.items()} == expected


def test_rows_in_batches_of_mixed_sizes_have_the_answers_of_single_ones(mapped: Mapped, questions: Rows) -> None:
    """Row by row, by the library called directly."""
    for number, (answer, kept) in by_one_process(questions[40:60], together=1).items():
        row = mapped.both[f"row {number}"]
        dropped = row["visual_tokens"] - len(kept)
        full = row["tokens_by_layer"][0]
        assert (row["answer"], row["kept_indices"]) == (answer, kept)
        assert row["tokens_by_layer"] == [full] * LAYER + [full - dropped] * (LAYERS - LAYER)
        assert 0 < row["selection_seconds"] < row["first_token_seconds"]
    assert len({mapped.both[f"row {number}"]["visual_tokens"] for number in range(8)}) > 1
    assert max(row["batch_rows"] or 0 for row in mapped.both.values()) == BATCH


def test_a_run_that_was_stopped_goes_on_where_it_was(mapped: Mapped) -> None:
    """What was there is left as it was, and what was half written goes."""
    report, first, total = mapped.report, mapped.first, ROWS + len(BROKEN)

    assert STOPPED <= len(first) < KILLED
    assert {identity: mapped.both[identity] for identity in first} == first
    assert (report.earlier, report.total, report.done, report.repeated) == (len(first), total, total, 0)
    assert not list(mapped.output.glob("*.unfinished"))


def test_answers_of_other_settings_or_other_ids_are_not_mixed(mapped: Mapped, questions: Rows, tmp_path: Path) -> None:
    """Both are named."""
    numbered = write_lines(tmp_path / "rows.jsonl", questions[:2])

    with pytest.raises(ValueError, match=r"holds answers with budget = 0\.222, and not 0\.5: expected the same"):
        prune_to_parquet(mapped.source, mapped.output, model=mapped.loader, **{**SETTINGS, "budget": 0.5})
    with pytest.raises(ValueError, match=r"holds ids of type string, the rows have int64: expected the same type"):
        prune_to_parquet(numbered, mapped.output, model=mapped.loader, **SETTINGS)


def test_broken_rows_become_errors_and_their_count_is_told(mapped: Mapped) -> None:
    """Missing and damaged files, sizes that the model refuses, no prompt, no picture, no row, and one that kills."""
    for name, (_, message) in BROKEN.items():
        assert re.search(message, mapped.both[name]["error"])
        assert mapped.both[name]["answer"] is None
    broken_before = sum(row["error"] is not None for row in mapped.first.values())
    assert mapped.report.failed == len(BROKEN) - broken_before
    assert f"{mapped.report.failed} with an error" in str(mapped.report)


def test_pictures_in_memory_are_answered_through_rays_own_types(questions: Rows, tmp_path: Path) -> None:
    """Arrays of one size, of several, and the Hub's mappings; by the process's class, called here."""
    task = Task(
        load=MiniatureLoader(tmp_path),
        settings={"budget": BUDGET, "layer": LAYER},
        prompt=None,
        max_new_tokens=2,
        frames=2,
        threads=1,
        root=tmp_path,
    )
    actor = PruningActor(task, ray.remote(num_cpus=0)(Attempts).remote())
    expected = by_one_process(questions[:3], together=1)
    arrays = [np.asarray(Image.open(row["image"]).convert("RGB")) for row in questions[:3]]
    mappings = [{"bytes": Path(row["image"]).read_bytes(), "path": None} for row in questions[:3]]

    with actor.session:
        for images in (arrays, arrays[:1], mappings):
            rows = [{**row, "image": image} for row, image in zip(questions, images, strict=False)]
            (batch,) = ray.data.from_items(rows, override_num_blocks=1).iter_batches(
                batch_size=None, batch_format="pyarrow"
            )

            found = {row["id"]: (row["answer"], row["kept_indices"]) for row in actor(batch).to_pylist()}

            assert found == {number: expected[number] for number in range(len(images))}


def test_more_than_the_cluster_can_hold_is_refused_at_once(questions: Rows, tmp_path: Path) -> None:
    """Two processes of one processor each leave none for reading, on which Ray Data would wait for ever."""
    rows = ray.data.from_items([dict(row) for row in questions[:2]])

    with pytest.raises(ValueError, match=r"`actors` is 2 of 1 CPUs and 0 GPUs each, beside 1 CPU for reading, which 1"):
        prune_dataset(rows, model=MiniatureLoader(tmp_path), actors=2, cpus_per_actor=1, **SETTINGS)
    with pytest.raises(ValueError, match=r"`actors` is 1 of \S+ CPUs and 1 GPUs each"):
        prune_dataset(rows, model=MiniatureLoader(tmp_path), gpus_per_actor=1, **SETTINGS)


def test_a_model_that_does_not_load_ends_the_run(questions: Rows) -> None:
    """With its own error, instead of being loaded again and again."""
    rows = ray.data.from_items([dict(row) for row in questions[:2]])

    with pytest.raises(Exception, match="the weights are damaged"):
        prune_dataset(rows, model=fails_to_load, **SETTINGS).take_all()


def test_what_the_model_cannot_do_is_refused_before_any_process_starts(questions: Rows, tmp_path: Path) -> None:
    """From its configuration alone: there are no weights."""
    rows = ray.data.from_items([dict(row) for row in questions[:2]])
    load_miniature("qwen2.5-vl").model.config.save_pretrained(tmp_path)

    for settings, message in (
        ({"layer": 99}, "`layer`"),
        ({"budget": 2.5}, "`budget`"),
        ({"method": "no"}, "`method`"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_dataset(rows, model=tmp_path, **{**SETTINGS, **settings})
    with pytest.raises(TypeError, match="`history` is no argument, expected one of `prune_dataset`, or budget, heads"):
        prune_dataset(rows, model=tmp_path, history=4, **SETTINGS)
    with pytest.raises(ValueError, match=r"`dataset` has the columns id, prompt, expected id, and image or video"):
        prune_dataset(rows.select_columns(["id", "prompt"]), model=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match=r"`prompt` is missing: the rows have no column prompt"):
        prune_dataset(rows.select_columns(["id", "image"]), model=tmp_path, **SETTINGS)
    with pytest.raises(OSError, match=r"holds no weights, expected files that end in \.safetensors or \.bin"):
        prune_dataset(rows, model=tmp_path, **SETTINGS)
    with pytest.raises(TypeError, match=r"`prompt` is a int, expected a text"):
        prune_dataset(rows, model=tmp_path, prompt=5, **SETTINGS)
    for identity, kind in ((UUID(int=1), "extension<arrow.uuid>"), (0.5, "double"), ([1], "list<item: int64>")):
        with pytest.raises(ValueError, match=f"`dataset` holds ids of type {kind}, expected integers or text"):
            prune_dataset(ray.data.from_items([{**rows.take(1)[0], "id": identity}]), model=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match=r"`batch_size` is 0, expected an integer of at least 1"):
        prune_dataset(rows, model=tmp_path, batch_size=0, **SETTINGS)

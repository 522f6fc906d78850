"""Whole data sets: every row once, with the answer that one process gives it alone, whatever dies on the way."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from iwp_miniature import load_miniature
from iwp_ray import MapReport, prune_dataset, prune_to_parquet
from iwp_transformers import prune_visual_tokens
from tests.ray.conftest import write_lines
from tests.ray.miniature_loader import DEADLY, MiniatureLoader, fails_to_load

Rows = Sequence[Mapping[str, Any]]
BUDGET, LAYER = 0.222, 2
SETTINGS: dict[str, Any] = {"budget": BUDGET, "layer": LAYER, "max_new_tokens": 2}

pytestmark = pytest.mark.usefixtures("cluster")


def alone(rows: Rows) -> dict[int, tuple[str, list[int]]]:
    """Answers and kept tokens of rows by their ids, one row at a time, by the library called directly."""
    miniature = load_miniature("qwen2.5-vl")
    answers = {}
    with prune_visual_tokens(miniature.model, budget=BUDGET, layer=LAYER) as session:
        for row in rows:
            with Image.open(row["image"]) as image:
                inputs = miniature.encode([image], [row["prompt"]])
            (answer,) = miniature.answer(inputs)
            answers[row["id"]] = answer, session.records[-1].kept_indices[0].tolist()
    return answers


def written(folder: Path) -> dict[Any, dict[str, Any]]:
    """Rows of answers on disk, by their ids; fails where an id is there twice."""
    rows = pq.read_table(folder).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def test_500_rows_are_all_there_once_though_a_process_is_killed_in_the_middle(questions: Rows, tmp_path: Path) -> None:
    """Answers and kept tokens are those of one process that answers row by row."""
    (tmp_path / "processes").mkdir()
    killed: list[int] = []

    def kill_one(report: MapReport) -> None:
        if report.done >= 150 and not killed:
            killed.append(int(next((tmp_path / "processes").iterdir()).name))
            os.kill(killed[0], signal.SIGKILL)

    report = prune_to_parquet(
        write_lines(tmp_path / "rows.jsonl", questions),
        tmp_path / "answers",
        model=MiniatureLoader(tmp_path / "processes"),
        actors=2,
        progress=kill_one,
        **SETTINGS,
    )

    found, expected = written(tmp_path / "answers"), alone(questions)
    assert killed
    assert len(list((tmp_path / "processes").iterdir())) == 3
    assert (report.total, report.done, report.answered, report.failed, report.repeated) == (500, 500, 500, 0, 0)
    assert found.keys() == expected.keys()
    differ = [number for number, row in found.items() if (row["answer"], row["kept_indices"]) != expected[number]]
    assert differ == []


def test_a_run_that_was_stopped_goes_on_where_it_was(questions: Rows, tmp_path: Path) -> None:
    """What is there is left as it is, and what was half written goes; other settings are refused."""

    def stop(report: MapReport) -> None:
        if report.done >= 16:
            raise KeyboardInterrupt

    rows, loader, folder = (
        write_lines(tmp_path / "rows.jsonl", questions[:64]),
        MiniatureLoader(tmp_path),
        tmp_path / "out",
    )
    with pytest.raises(KeyboardInterrupt):
        prune_to_parquet(rows, folder, model=loader, progress=stop, **SETTINGS)
    first = written(folder)
    (folder / "part-1.parquet.unfinished").touch()

    report = prune_to_parquet(rows, folder, model=loader, **SETTINGS)

    both = written(folder)
    assert 16 <= len(first) < 64
    assert (report.earlier, report.answered, report.done) == (len(first), 64 - len(first), 64)
    assert both.keys() == {row["id"] for row in questions[:64]}
    assert {number: both[number] for number in first} == first
    assert not list(folder.glob("*.unfinished"))
    with pytest.raises(ValueError, match=r"holds answers with budget = 0\.222, and not 0\.5: expected the same"):
        prune_to_parquet(rows, folder, model=loader, **{**SETTINGS, "budget": 0.5})
    with pytest.raises(ValueError, match=r"holds ids of type int64, the rows have string: expected the same type"):
        prune_to_parquet(Path(questions[0]["image"]).parent, folder, model=loader, **SETTINGS)


def test_broken_rows_become_errors_and_the_others_of_their_batch_are_answered(questions: Rows, tmp_path: Path) -> None:
    """Missing and damaged files, sizes that the model refuses, no prompt, no picture, and no row at all."""
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (1000, 1)).save(tmp_path / "thin.png")
    broken: dict[str, tuple[Any, str]] = {
        "missing": ({"image": "missing.png", "prompt": "How many 3?"}, r"missing\.png' cannot be read: No such file"),
        "damaged": ({"image": "damaged.png", "prompt": "How many 3?"}, r"damaged\.png' is not an image"),
        "thin": ({"image": "thin.png", "prompt": "How many 3?"}, r"thin\.png' has 1000 x 1 pixels, which the model's"),
        "silent": ({"image": questions[0]["image"]}, "the row has no `prompt`, and none was given"),
        "blind": ({"prompt": "How many 3?"}, "the row holds neither `image` nor `video`"),
        "both": ({"image": "a", "video": "b", "prompt": ""}, "the row holds both `image` and `video`"),
        "number": ({"image": 7, "prompt": ""}, "`image` is 7, expected text"),
    }
    lines: list[Any] = [{"id": name, **row} for name, (row, _) in broken.items()]
    lines += ["{no json", "[1]", *({**row, "id": f"fine {row['id']}"} for row in questions[:5])]

    report = prune_to_parquet(
        write_lines(tmp_path / "rows.jsonl", lines), tmp_path / "out", model=MiniatureLoader(tmp_path), **SETTINGS
    )

    found, expected = written(tmp_path / "out"), alone(questions[:5])
    assert (report.answered, report.failed, report.total) == (5, 9, 14)
    assert "9 with an error" in str(report)
    for name, (_, message) in broken.items():
        assert re.search(message, found[name]["error"])
    assert "it is no JSON" in found["rows.jsonl:8"]["error"]
    assert "it holds a list, expected an object" in found["rows.jsonl:9"]["error"]
    assert all(row["answer"] is None for row in found.values() if row["error"])
    for number, (answer, kept) in expected.items():
        row = found[f"fine {number}"]
        assert (row["answer"], row["kept_indices"], row["error"]) == (answer, kept, None)


def test_a_row_that_kills_its_process_becomes_an_error(questions: Rows, tmp_path: Path) -> None:
    """Tried with its batch, and twice alone; the others are answered, and once only."""
    rows = [{**row, "prompt": "What is below?"} for row in questions[:12]]
    rows[3]["prompt"] = f"Is there a {DEADLY} 7?"

    report = prune_to_parquet(
        write_lines(tmp_path / "rows.jsonl", rows),
        tmp_path / "out",
        model=MiniatureLoader(tmp_path, deadly=True),
        **SETTINGS,
    )

    found = written(tmp_path / "out")
    assert (report.answered, report.failed, len(found)) == (11, 1, 12)
    assert found[rows[3]["id"]]["error"] == "the process that worked on this row alone died 2 times"


def test_rows_of_memory_are_answered_from_bytes_and_arrays(questions: Rows, tmp_path: Path) -> None:
    """As encoded bytes, as the Hub's mappings, and as arrays; each with its tokens by layer."""
    contents = [Path(row["image"]).read_bytes() for row in questions[:3]]
    arrays = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
    ways = {"bytes": contents, "mapping": [{"bytes": each, "path": None} for each in contents], "array": arrays}
    expected = alone(questions[:3])

    for name, images in ways.items():
        rows = [
            {"id": row["id"], "image": image, "prompt": row["prompt"]}
            for row, image in zip(questions, images, strict=False)
        ]
        answers = prune_dataset(ray.data.from_items(rows), model=MiniatureLoader(tmp_path), **SETTINGS).take_all()

        found = {row["id"]: (row["answer"], list(row["kept_indices"])) for row in answers}
        assert found == expected, name
        for row in answers:
            dropped = row["visual_tokens"] - len(row["kept_indices"])
            full = row["tokens_by_layer"][0]
            assert list(row["tokens_by_layer"]) == [full] * LAYER + [full - dropped] * (8 - LAYER)
            assert 0 < row["selection_seconds"] < row["first_token_seconds"]


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
    with pytest.raises(ValueError, match=r"`dataset` has the columns id, prompt, expected id, and image or video"):
        prune_dataset(rows.select_columns(["id", "prompt"]), model=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match=r"`batch_size` is 0, expected an integer of at least 1"):
        prune_dataset(rows, model=tmp_path, batch_size=0, **SETTINGS)

"""Rows from folders, JSONL and parquet, and what is no source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iwp_ray.sources import opened_source
from tests.ray.conftest import write_lines

pytestmark = pytest.mark.usefixtures("cluster")


def rows_of(path: Path) -> list[Mapping[str, Any]]:
    """Rows of a source, without what is null, by their ids."""
    rows = sorted(opened_source(path).rows.take_all(), key=lambda row: str(row["id"]))
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def test_a_folder_gives_a_row_for_each_picture_below_it(tmp_path: Path) -> None:
    """Called by their paths; hidden files and other files are none."""
    for name in ("a.png", "in/b.JPG", "in/clip.mp4", "notes.txt", ".hidden.png", ".cache/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    source = opened_source(tmp_path)

    assert (source.total, source.root) == (3, tmp_path)
    assert rows_of(tmp_path) == [
        {"id": "a.png", "image": ["a.png"]},
        {"id": "in/b.JPG", "image": ["in/b.JPG"]},
        {"id": "in/clip.mp4", "video": ["in/clip.mp4"]},
    ]


def test_lines_without_an_id_are_called_by_their_numbers(tmp_path: Path) -> None:
    """Which counts empty lines, so that an editor shows the line."""
    path = write_lines(
        tmp_path / "rows.jsonl", [{"image": "a.png"}, "", {"image": ["a.png", "b.png"], "prompt": "why"}]
    )

    assert rows_of(path) == [
        {"id": "rows.jsonl:1", "image": ["a.png"]},
        {"id": "rows.jsonl:3", "image": ["a.png", "b.png"], "prompt": "why"},
    ]


def test_lines_of_which_none_has_a_prompt_have_no_such_column(tmp_path: Path) -> None:
    """So that one for all is asked for before a model is loaded; a line nested without end is broken, as others are."""
    path = write_lines(tmp_path / "rows.jsonl", [{"image": "a.png"}, "[" * 100_000])

    opened = opened_source(path)

    assert "prompt" not in opened.rows.columns()
    (broken,) = [row for row in opened.rows.take_all() if row["id"] == "rows.jsonl:2"]
    assert broken["_broken"].startswith("rows.jsonl:2: it is no JSON: maximum recursion depth")


def test_a_list_in_a_folder_stands_for_it(tmp_path: Path) -> None:
    """By the names that `iwp tune` knows too; pictures beside it are what it names."""
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": "in/a.png"}, {"videos": ["b.mp4"], "id": "clip"}])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()

    assert opened_source(tmp_path).root == tmp_path
    assert rows_of(tmp_path) == [{"id": "clip", "video": ["b.mp4"]}, {"id": "metadata.jsonl:1", "image": ["in/a.png"]}]


def test_parquet_files_of_a_folder_are_one_source(tmp_path: Path) -> None:
    """Integers stay integers, and columns of no concern stay behind."""
    for start in (0, 2):
        table = pa.table({"id": [start, start + 1], "image": [b"x", b"y"], "more": [1.0, 2.0]})
        pq.write_table(table, tmp_path / f"{start}.parquet", row_group_size=1)

    assert opened_source(tmp_path).total == 4
    assert rows_of(tmp_path) == [{"id": number, "image": b"x" if number % 2 == 0 else b"y"} for number in range(4)]


def parquet(columns: Mapping[str, Sequence[Any]]) -> Callable[[Path], Path]:
    """Make a parquet file of columns."""

    def make(folder: Path) -> Path:
        pq.write_table(pa.table(dict(columns)), folder / "rows.parquet")
        return folder / "rows.parquet"

    return make


def two_files(*tables: Mapping[str, Sequence[Any]]) -> Callable[[Path], Path]:
    """Make a folder of parquet files."""

    def make(folder: Path) -> Path:
        for number, columns in enumerate(tables):
            pq.write_table(pa.table(dict(columns)), folder / f"{number}.parquet")
        return folder

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (parquet({"id": [0.5], "image": ["x"]}), r"rows\.parquet' holds ids of type double, expected integers or text"),
        (
            parquet({"id": pa.array([], pa.string()), "image": pa.array([], pa.string())}),
            r"rows\.parquet' holds no rows",
        ),
        (
            two_files({"id": [1], "image": ["x"]}, {"id": ["b"], "image": ["y"]}),
            r"ids of type string, expected int64, as",
        ),
        (
            two_files({"id": [1], "image": ["x"]}, {"id": [2], "image": ["y"], "prompt": ["z"]}),
            r"1\.parquet' has the columns id, image, prompt, expected those of the first file",
        ),
        (
            lambda folder: {write_lines(folder / f"{name}.jsonl", [{"image": "a"}]).parent for name in "ab"}.pop(),
            r"holds several lists of rows, 'a\.jsonl', 'b\.jsonl': name one of them",
        ),
        (
            lambda folder: write_lines(folder / "half.parquet", ["PAR1"]),
            r"half\.parquet' is damaged, or no parquet file: Parquet",
        ),
        (lambda folder: folder / ("x" * 999), r"x' does not exist, expected a folder"),
        (lambda folder: folder / "missing", r"missing' does not exist, expected a folder, a parquet file or a JSONL"),
        (lambda folder: folder, "holds no rows, expected images, videos, a parquet file or lines of JSON"),
        (lambda folder: write_lines(folder / "rows.csv", ["id,image"]), r"rows\.csv' is of no known kind, expected a"),
        (
            lambda folder: write_lines(folder / "rows.jsonl", [{"id": 7, "image": "a"}, {"id": 7, "image": "b"}]),
            r"rows\.jsonl' holds `id` 7 2 times, expected a different one in each row",
        ),
        (parquet({"id": ["a", "b", "a"], "image": ["x", "y", "z"]}), r"rows\.parquet' holds `id` 'a' 2 times"),
        (parquet({"id": ["a", None], "image": ["x", "y"]}), "holds 1 rows whose `id` is null"),
        (parquet({"name": ["a"], "image": ["x"]}), "has the columns image, name, expected id, and image or video"),
    ],
)
def test_what_is_no_source_is_refused(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    """With what was found, and what is expected."""
    with pytest.raises((ValueError, OSError), match=message):
        opened_source(make(tmp_path))

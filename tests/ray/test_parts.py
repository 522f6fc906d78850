"""The folder of answers: one program at a time, files that are whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iwp_ray.parts import AnswerFolder


def test_a_second_program_is_kept_from_the_folder_until_the_first_is_done(tmp_path: Path) -> None:
    """Then it has to start again, since it does not know what was written meanwhile."""
    first, second = AnswerFolder(tmp_path / "out", {}), AnswerFolder(tmp_path / "out", {})

    with first.opened():
        with pytest.raises(ValueError, match="is being written to by another program"), second.opened():
            pass
        first.add(first.without_known(pa.table({"id": [7]})))
    with pytest.raises(ValueError, match="was written to by another program meanwhile"), second.opened():
        pass
    third = AnswerFolder(tmp_path / "out", {})
    with third.opened():
        third.add(third.without_known(pa.table({"id": [8, 7, 8]})))

    assert sorted(pq.read_table(tmp_path / "out")["id"].to_pylist()) == [7, 8]


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    """Whatever they are."""
    (tmp_path / "notes.txt").touch()

    with pytest.raises(ValueError, match=r"holds 'notes\.txt', expected an empty folder or one of earlier answers"):
        AnswerFolder(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("_settings.json", "", r"_settings\.json' is damaged \(.*\), so how its answers were made is not known"),
        (
            "_settings.json",
            "[" * 100_000,
            r"_settings\.json' is damaged \(.*recursion.*\), so how its answers were made",
        ),
        ("_settings.json", "[]", r"_settings\.json' holds a list, and not how answers were made: choose another"),
        ("part-1.parquet", "PAR1", r"part-1\.parquet' is damaged, or holds no answers \(.*Parquet file size is 4"),
    ],
)
def test_damage_in_the_folder_is_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    """With the file and what can be done; the folder stays as it was."""
    with AnswerFolder(tmp_path, {"budget": "0.5"}).opened():
        pass
    (tmp_path / name).write_text(content)

    with pytest.raises(ValueError, match=message):
        AnswerFolder(tmp_path, {"budget": "0.5"})
    assert (tmp_path / name).read_text() == content


def test_a_file_is_no_folder_of_answers(tmp_path: Path) -> None:
    """Nor is one that stands where it should be."""
    (tmp_path / "out").touch()

    with pytest.raises(ValueError, match="out' is a file, expected a folder"):
        AnswerFolder(tmp_path / "out", {})


def test_rows_without_an_id_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """Each of them is broken, and has its error."""
    folder = AnswerFolder(tmp_path, {})

    fresh = folder.without_known(pa.table({"id": pa.array([None, 1, None, 1], pa.int64())}))

    assert fresh["id"].to_pylist() == [None, 1, None]

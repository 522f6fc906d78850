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

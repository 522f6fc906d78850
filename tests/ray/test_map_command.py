"""`iwp map` as a user meets it, on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ray.exceptions import RayError
from typer.testing import CliRunner, Result

import iwp_ray
from iwp_cli.app import app
from iwp_ray import MapReport
from tests.integrations.processors import coordinate_picture, llava_processor
from tests.models.factory import tiny_model

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny LLaVA-1.5, whose processor needs no torchvision."""
    folder = tmp_path_factory.mktemp("weights")
    model: Any = tiny_model("llava")
    model.save_pretrained(folder)
    llava_processor(model.config).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder of two pictures and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    coordinate_picture(30, 40).save(folder / "a.png")
    coordinate_picture(50, 20).save(folder / "b.png")
    (folder / "c.png").write_text("no picture", encoding="utf-8")
    return folder


def invoke(*arguments: object) -> Result:
    """Run the command in this process, on a wide terminal."""
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["map", *map(str, arguments)])


def test_command_answers_the_pictures_of_a_folder(weights: Path, photos: Path, tmp_path: Path) -> None:
    """Counts are told on the standard output, errors in one line on the other."""
    done = invoke(
        *(photos, "--model", weights, "--output", tmp_path / "out", "--prompt", "what is this ?"),
        *("--budget", 0.25, "--layer", 1, "--max-new-tokens", 3, "--local-files-only"),
    )

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("3 rows: 2 answered in ")
    assert "iwp map: warning: 1 rows have no answer, the column error says why" in done.stderr
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert sorted(rows) == ["a.png", "b.png", "c.png"]
    assert "is not an image that Pillow can read" in rows["c.png"]["error"]
    assert [len(rows[name]["kept_indices"]) for name in ("a.png", "b.png")] == [4, 4]
    assert [rows[name]["visual_tokens"] for name in ("a.png", "b.png")] == [16, 16]


def test_a_run_without_an_answer_fails(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are written with their errors, and the exit status says that nothing else is."""
    report = MapReport(total=2, earlier=0, answered=0, failed=2, repeated=0, seconds=1.0)
    monkeypatch.setattr(iwp_ray, "prune_to_parquet", lambda *_, **__: report, raising=False)

    done = invoke(tmp_path, "--model", weights, "--output", tmp_path / "out", "--prompt", "this", "--layer", 1)

    assert done.exit_code == 1
    assert done.stdout.startswith("2 rows: 0 answered in ")
    assert done.stderr.splitlines()[-1] == "iwp map: error: 2 rows have no answer, the column error says why"


def test_a_process_that_fails_is_told_by_the_last_line_of_its_traceback(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which says why; that of the program itself failed on the way, not by what was given."""

    def fails(*_: object, **__: object) -> None:
        msg = "The actor died.\n  File ...\nOSError: no file named model.safetensors\n"
        raise RayError(msg)

    monkeypatch.setattr(iwp_ray, "prune_to_parquet", fails, raising=False)

    done = invoke(photos, "--model", weights, "--output", tmp_path / "out", "--prompt", "this", "--layer", 1)

    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "iwp map: error: a process failed: OSError: no file named model.safetensors"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "many"), "--budget: 'many' is no number, expected a share"),
        (("--budget", "1.5"), "`budget` is 1.5"),
        (("--layer", "99"), "`layer` is 99"),
        (("--actors", "9", "--cpus", "1"), "`actors` is 9 of 1 CPUs"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: tuple[str, ...], message: str, weights: Path, photos: Path, tmp_path: Path
) -> None:
    """And leaves no folder behind."""
    done = invoke(
        photos, "--model", weights, "--output", tmp_path / "out", "--prompt", "this", "--layer", 1, *arguments
    )

    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("iwp map: error: ")
    assert message in done.stderr
    assert not (tmp_path / "out").exists()

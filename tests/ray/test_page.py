"""The examples of docs/ray.md run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from iwp_ray import MapReport
from iwp_ray.answers import ANSWER_FIELDS
from tests.ray.miniature_loader import MiniatureLoader

PAGE = (Path(__file__).parents[2] / "docs" / "ray.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("cluster")
def test_the_page_runs(
    questions: Sequence[Mapping[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other."""
    picture = tmp_path / "pictures" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(Path(questions[0]["image"]).read_bytes())
    names: dict[str, Any] = {
        "picture": picture,
        "output": tmp_path / "answers",
        "model": MiniatureLoader(tmp_path),
    }

    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "ray.md", "exec"), names)  # the examples are the thing tested

    report = names["report"]
    assert isinstance(report, MapReport)
    assert (report.answered, report.failed) == (1, 0)
    printed = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in printed[:2]) == ["1", "2"]


def test_the_page_names_every_column() -> None:
    """Of answers, as the code has them."""
    assert [name for name in ("id", *ANSWER_FIELDS) if f"`{name}`" not in PAGE] == []

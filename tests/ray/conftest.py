"""A cluster of two processors on this machine, and questions about pictures; what needs Ray is left out without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROWS, PICTURES = 96, 32
WITHOUT_RAY = ("test_placement.py", "test_rows.py")
if find_spec("torch") is None or find_spec("transformers") is None:
    collect_ignore_glob = ["test_*.py"]
elif find_spec("ray") is None:
    names = {file.name for file in Path(__file__).parent.glob("test_*.py")}
    collect_ignore = sorted(names.difference(WITHOUT_RAY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Show what Ray warns itself of its own settings, instead of failing on it."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Start Ray on two processors, whatever the machine has."""
    import ray
    from ray.data import DataContext

    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Sequence[dict[str, Any]]:
    """Questions about pictures of several sizes, in turn, as lines of JSON have them; paths are whole."""
    from PIL import Image

    from iwp_miniature import architecture, draw_examples

    folder = tmp_path_factory.mktemp("pictures")
    examples = draw_examples(architecture("qwen2.5-vl"), split="test", per_kind=7, seed=3)
    # Sizes lie together in the list; taken at long strides, neighbours differ.
    mixed = [examples[(number * 37) % len(examples)] for number in range(PICTURES)]
    for number, example in enumerate(mixed):
        Image.fromarray(example.scene.pixels).save(folder / f"{number}.png")
    return [
        {
            "id": number,
            "image": str(folder / f"{number % PICTURES}.png"),
            "prompt": mixed[number * 3 % PICTURES].question.text,
        }
        for number in range(ROWS)
    ]


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    """Write a file of JSON lines; text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path

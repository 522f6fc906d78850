"""The examples on the pages on serving and on tuning run, as they stand there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from iwp_transformers.tuning import campaign
from tests.integrations import tiny_models
from tests.integrations.tiny_models import Image, make_inputs
from tests.pages import python_blocks


class Words(list[Any]):
    """A streamer that collects what it is handed."""

    def put(self, value: Any) -> None:
        """Take some tokens."""
        self.append(value)

    def end(self) -> None:
        """Be told that nothing follows."""


def test_the_page_on_serving_runs() -> None:
    """Threads, streaming and a second turn, pasted one after the other."""
    model: Any = tiny_models.llava_onevision(num_hidden_layers=4)
    requests = [make_inputs(model, [(3 + number, Image(), 4)]) for number in range(3)]
    names: dict[str, Any] = {"model": model, "requests": requests, "torch": torch, "streamer": Words()}
    names["follow_up_questions"] = [torch.tensor([[5, 6]]), torch.tensor([[7]])]

    for block in python_blocks("docs/serving.md"):
        exec(compile(block, "serving.md", "exec"), names)  # the examples are the thing tested

    assert [len(answer) for answer in names["answers"]] == [1, 1, 1]
    assert len(names["follow_ups"]) == 2


def test_the_page_on_tuning_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search, its file and its drawing, pasted as they stand there."""
    monkeypatch.setattr(campaign, "TURNS", 1)
    model: Any = tiny_models.qwen2_5_vl()
    samples = [make_inputs(model, [(3, Image(), 4)])]
    names: dict[str, Any] = {"model": model, "samples": samples, "inputs": samples[0], "folder": tmp_path}

    for block in python_blocks("docs/tuning.md"):
        exec(compile(block, "tuning.md", "exec"), names)  # the examples are the thing tested

    assert names["output"].shape[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iwp.json", "tune.jsonl", "tune.png"]

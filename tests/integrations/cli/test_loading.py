"""What the commands say where torchvision is missing or broken, and how an answer is timed."""

from __future__ import annotations

import importlib.machinery
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from iwp_cli.loading import load_processor
from iwp_cli.refusal import Refusal
from iwp_cli.requirements import torchvision_trouble
from iwp_cli.timing import timed_answer
from iwp_transformers.timed_generation import TimedGeneration
from tests.integrations.processors import IDS, qwen2_5_vl_config


def test_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice names the library, that it is not installed, and the PyTorch it has to match."""
    monkeypatch.setitem(sys.modules, "torchvision", None)

    assert re.search(r"not installed: install the build that belongs to your PyTorch \d", torchvision_trouble() or "")


class BrokenTorchvision:
    """Finder of a torchvision that fails as one for another PyTorch does."""

    @classmethod
    def find_spec(cls, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Answer for torchvision alone."""
        return importlib.machinery.ModuleSpec(name, cls()) if name == "torchvision" else None  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:  # noqa: ARG002 the signature is Python's
        """Fail as torchvision does."""
        msg = "operator torchvision::nms does not exist"
        raise RuntimeError(msg)


def test_broken_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its import said is passed on, with what to install."""
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(sys, "meta_path", [BrokenTorchvision, *sys.meta_path])

    trouble = torchvision_trouble() or ""

    assert "does not load (operator torchvision::nms does not exist): install the build" in trouble


def test_processor_that_fails_for_want_of_torchvision_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever Transformers says, the reason that the user can mend is what is printed."""

    def fail(*_: object, **__: object) -> None:
        msg = "Could not import module 'AutoProcessor'"
        raise ModuleNotFoundError(msg)

    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", fail)

    with pytest.raises(Refusal, match="needs torchvision, which is not installed"):
        load_processor(str(tmp_path), local_files_only=True)


def test_timed_answer_holds_the_answer_alone() -> None:
    """The ids are those that follow the prompt, and the time is split at the first of them."""
    model: Any = Qwen2_5_VLForConditionalGeneration(qwen2_5_vl_config()).train(False)
    inputs = {"input_ids": torch.tensor([[IDS["what"], IDS["is"], IDS["this"]]])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, 3:]

    answer = timed_answer(model, inputs, 4)

    assert answer.ids[0].tolist() == expected.tolist()
    assert answer.first_token_seconds > 0
    assert answer.peak_bytes is None or answer.peak_bytes >= 0


@pytest.mark.parametrize(("count", "rate"), [(5, 2.0), (1, None)])
def test_rate_counts_the_tokens_after_the_first(count: int, rate: float | None) -> None:
    """The first token belongs to the prefill, so that five tokens in two seconds of decoding are two a second."""
    answer = TimedGeneration(ids=torch.zeros(1, count), first_token_seconds=9.0, decode_seconds=2.0, peak_bytes=None)

    assert answer.tokens_per_second == rate

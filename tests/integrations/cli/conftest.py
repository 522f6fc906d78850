"""Settings for the tests of the command line, and the tiny model that it asks; skipped where packages are missing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if any(find_spec(name) is None for name in ("torch", "transformers", "typer", "matplotlib", "sklearn")):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen2.5-VL without processor."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from tests.integrations.processors import qwen2_5_vl_config

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(qwen2_5_vl_config()).save_pretrained(folder)
    return folder


@pytest.fixture
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command use a processor that needs Pillow only."""
    from iwp_cli import loading
    from tests.integrations.processors import PillowQwenProcessor, qwen2_5_vl_config

    monkeypatch.setattr(loading, "load_processor", lambda *_, **__: PillowQwenProcessor(qwen2_5_vl_config()))


@pytest.fixture(autouse=True)
def verbosity() -> Iterator[None]:
    """Give Transformers back the talkativeness that the commands take from it."""
    from transformers import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    yield
    transformers_logging.set_verbosity(before)
    transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call] # the library's

"""Engines on the trained miniatures; run by ``make test-vllm`` in an environment of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import tests.vllm.settings  # noqa: F401 - before vLLM is imported


@pytest.fixture(scope="package", params=["llava-onevision", "qwen2.5-vl"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give each miniature in turn, as Transformers and as vLLM read it."""
    from tests.vllm.miniatures import trained

    return trained(request.param, tmp_path_factory.mktemp("miniatures"))


@pytest.fixture(scope="package")
def engine(trained: Any) -> Iterator[Any]:
    """Start an engine in this process that keeps 22.2 % by the question at layer 2."""
    from tests.vllm.engines import QUESTION, start, stop

    running = start(trained, QUESTION)
    yield running
    stop(running)


@pytest.fixture(autouse=True)
def as_started(request: pytest.FixtureRequest) -> None:
    """Let each test begin with the engine's own rule, empty caches and nothing recorded."""
    if "engine" in request.fixturenames:
        from tests.vllm.engines import QUESTION

        running = request.getfixturevalue("engine")
        running.use(QUESTION)
        running.forget()

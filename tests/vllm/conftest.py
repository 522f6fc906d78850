"""Engines on the trained miniatures; run by ``make test-vllm`` in an environment of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTUP = str(Path(__file__).parent / "startup")

# Read by vLLM when it is imported. No network, no statistics sent, one thread, the engine in this process.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "PYTHONPATH": os.pathsep.join(filter(None, (STARTUP, os.environ.get("PYTHONPATH")))),
}

from tests.integrations.torchvision_schemas import define_missing  # noqa: E402 - after the settings

define_missing()

from tests.vllm.engines import Engine, start, stop  # noqa: E402
from tests.vllm.miniatures import NAMES, Trained, trained  # noqa: E402 - imports Transformers

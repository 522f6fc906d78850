"""Imported before vLLM, which reads these settings: no network, no statistics sent, one thread, one process."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integrations.torchvision_schemas import define_missing

STARTUP = str(Path(__file__).parent / "startup")
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

os.environ |= SETTINGS | {"PYTHONPATH": os.pathsep.join(filter(None, (STARTUP, os.environ.get("PYTHONPATH"))))}
define_missing()

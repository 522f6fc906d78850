"""What every benchmark shares: the header of a result file, timing, peak memory."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from iwp_transformers.memory import PeakMemory

RESULTS = Path(__file__).parent / "results"
PAPER, PRESET, ABOVE = "IWP (the paper's default)", "per-query preset (ours)", "above-chance preset (ours)"
"""The names of our own rules in every result file."""

PACKAGES = ("iwp", "torch", "numpy", "transformers", "triton", "cupy-cuda12x", "cupy-cuda13x", "array-api-compat")


def header(command: str, **conditions: Any) -> dict[str, Any]:
    """Describe a run: command, device, versions, commit, date, and the conditions of the benchmark."""
    return {
        "command": command,
        "device": _device(),
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **conditions,
    }


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD")
    return (commit or "unknown") + (" with uncommitted changes" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str:
    """Return what Git says, nothing where there is no Git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _device() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def seconds(call: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Run a call once to warm up (if repeated) and `repeats` times on the clock; median and spread in seconds."""
    if repeats > 1:
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times), "least": min(times), "most": max(times), "repeats": repeats}


def peak_extra_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return how far a call lifts the memory in use on a device above where it was; on a CPU under Linux only.

    Raises
    ------
    RuntimeError
        Where it cannot be measured.
    """
    with PeakMemory(device) as memory:
        call()
    if memory.bytes is None:
        msg = f"the peak of memory cannot be measured on {device}"
        raise RuntimeError(msg)
    return memory.bytes


def write(name: str, result: dict[str, Any]) -> Path:
    """Write one JSON file of results and return its path."""
    path = RESULTS / f"{name}.json"
    write_to(path, result)
    return path


def write_to(path: Path, result: dict[str, Any]) -> None:
    """Write results anywhere; an interrupted write leaves the file before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """Return results that were written before, or None."""
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result

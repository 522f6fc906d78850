"""Every benchmark can be started: what a script takes from another is there."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest

from tests.benchmarks.conftest import BENCHMARKS

NEEDS = {"bench_vllm": "vllm"}


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_a_script_finds_what_it_imports(name: str) -> None:
    """Names that moved from one script to another are asked for where they are."""
    if find_spec(NEEDS.get(name, "torch")) is None:
        pytest.skip(f"{name} needs {NEEDS[name]}")

    assert import_module(name).__doc__

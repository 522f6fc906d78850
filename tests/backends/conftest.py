"""CuPy, the launches of Triton kernels, and what cannot even be imported where a library is missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from tests.backends.cupy_samples import cp

__all__ = ["cp", "launches", "ranking"]

NEED_TRITON = ["interpreted_triton.py", "interpreted_triton_batch.py", "triton_samples.py"]

collect_ignore = [] if find_spec("torch") and find_spec("triton") else NEED_TRITON


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of the kernels that are launched."""
    from iwp_torch import triton_magnitude, triton_pc_mmr, triton_places

    noted: list[str] = []
    for module in (triton_pc_mmr, triton_magnitude, triton_places):

        def launch(kernel: Any, grid: Any, *, _launch: Any = module.launch, **arguments: Any) -> None:
            noted.append(kernel.__name__)
            _launch(kernel, grid, **arguments)

        monkeypatch.setattr(module, "launch", launch)
    return noted


@pytest.fixture(params=["at once", "by top-k"])
def ranking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Rank as few tokens are ranked, and as many are."""
    from iwp_torch import triton_pc_mmr

    if request.param == "by top-k":
        monkeypatch.setattr(triton_pc_mmr, "AT_ONCE", 0)
    return str(request.param)

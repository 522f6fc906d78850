"""The specification holds for the reference code here; tests/backends holds the plugins to the reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iwp_core import pc_mmr, use_backend


@pytest.fixture(autouse=True)
def _reference_only() -> Iterator[None]:
    """Switch installed plugins off, so that these tests judge `iwp_core` alone."""
    with use_backend("reference"):
        yield


@pytest.fixture(scope="module", params=[0, pc_mmr.FEW], ids=["lazily", "step by step"])
def either_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with each of the ways in which PC-MMR computes, however few the tokens are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pc_mmr, "FEW", request.param)
        patch.setattr(pc_mmr, "MANY", request.param)
        patch.setattr(pc_mmr, "SPARE", 0 if request.param == 0 else pc_mmr.SPARE)
        patch.setattr(pc_mmr, "POOLED", 0)
        patch.setattr(pc_mmr, "CHEAP", 9.0)
        patch.setattr(pc_mmr, "PATIENCE", 1)
        yield

"""The specification holds for the reference code here; tests/backends holds the plugins to the reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iwp_core import pc_mmr, penalties, use_backend


@pytest.fixture(autouse=True)
def _reference_only() -> Iterator[None]:
    """Switch installed plugins off, so that these tests judge `iwp_core` alone."""
    with use_backend("reference"):
        yield


@pytest.fixture(scope="class", params=["from a pool", "behind a pool", "lazily", "in place", "at once"])
def every_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with each of the ways in which PC-MMR computes, however few the tokens are.

    Of this scope, as hypothesis refuses fixtures of functions, and what is of modules would last into other tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pc_mmr, "PATIENCE", 1)
        patch.setattr(pc_mmr, "SPARE", {"from a pool": 24, "at once": 1 << 20}.get(request.param, 0))
        for share in ("POOL", "WHOLE_POOL"):
            patch.setattr(pc_mmr, share, 0.0 if request.param in ("lazily", "in place") else 1.0)
        patch.setattr(pc_mmr, "HEAVY", 0)
        patch.setattr(pc_mmr, "ASKED", -1.0 if request.param == "in place" else 0.25)
        patch.setattr(pc_mmr, "HOPELESS", -1.0 if request.param == "in place" else 0.5)
        for most in ("EASIER", "EASY"):
            patch.setattr(pc_mmr, most, 1 << 60 if request.param == "at once" else 0)
        patch.setattr(penalties, "TRIFLE", 1 << 60 if request.param == "at once" else 0)
        patch.setattr(pc_mmr, "WORTHWHILE", -1.0 if request.param == "in place" else 0.8)
        yield

"""The specification holds for the reference code here; tests/backends holds the plugins to the reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iwp_core import use_backend


@pytest.fixture(autouse=True)
def _reference_only() -> Iterator[None]:
    """Switch installed plugins off, so that these tests judge `iwp_core` alone."""
    with use_backend("reference"):
        yield

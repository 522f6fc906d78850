"""Doctests of packages whose library is not installed are left out; `make test-ray` runs those on Ray."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ON_RAY = Path(__file__).parent / "iwp_ray"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what imports Ray where there is none, also where it is named."""
    if find_spec("ray") is None and ON_RAY in (collection_path, *collection_path.parents):
        return True
    return None

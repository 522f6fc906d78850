"""Shared fixtures: the array libraries that the tests run on, and how hypothesis runs."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

from tests.libraries import LIBRARIES, Library, load

# JAX compiles each new shape, so no example has a time limit; CI draws the same examples every time.
settings.register_profile("laptop", deadline=None, max_examples=40)
settings.register_profile("ci", parent=settings.get_profile("laptop"), derandomize=True, print_blob=True)
settings.register_profile("thorough", parent=settings.get_profile("laptop"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "laptop"))


@pytest.fixture(scope="session", params=LIBRARIES)
def xp(request: pytest.FixtureRequest) -> Library:
    """Give each array library in turn; one that is not installed is skipped.

    Session-scoped, because hypothesis rightly refuses fixtures that would be shared between its examples.
    """
    return load(request.param)


def pytest_collection_finish() -> None:
    """Leave what is imported and collected out of every later garbage collection: it stays to the end."""
    gc.collect()
    gc.freeze()

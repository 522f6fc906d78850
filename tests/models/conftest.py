"""Settings for the tests of all classes: skipped as a whole without Transformers, on one thread with it."""

from importlib.util import find_spec

import pytest

from tests.integrations.conftest import one_thread
from tests.integrations.torchvision_schemas import define_missing

__all__ = ["one_thread"]

if find_spec("torch") is None or find_spec("transformers") is None:
    collect_ignore_glob = ["*.py"]
else:
    # Towers that come from timm import torchvision.
    define_missing()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a `model_type` for each class of the mapping of this version of Transformers."""
    if "model_type" in metafunc.fixturenames:
        from tests.models.factory import CLASSES
        from tests.models.outside import NEED_TIMM, ON_OLDER_VERSIONS
        from tests.models.table import is_older_than_the_page

        names = [name for name in CLASSES if not is_older_than_the_page() or name in ON_OLDER_VERSIONS]
        without_timm = pytest.mark.skipif(find_spec("timm") is None, reason="the tower comes from timm, not installed")
        marks = {name: [without_timm] if name in NEED_TIMM else [] for name in names}
        metafunc.parametrize("model_type", [pytest.param(name, marks=marks[name], id=name) for name in names])

"""Settings for these tests: skipped as a whole without what the command line needs, on one thread with it."""

from importlib.util import find_spec

from tests.integrations.conftest import one_thread
from tests.integrations.torchvision_schemas import define_missing

if any(find_spec(name) is None for name in ("torch", "transformers", "typer", "sklearn")):
    collect_ignore_glob = ["test_*.py"]
else:
    define_missing()

__all__ = ["one_thread"]

"""Settings for these tests: skipped as a whole without what the command line needs, on one thread with it."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.integrations.torchvision_schemas import define_missing

if any(find_spec(name) is None for name in ("torch", "transformers", "typer", "sklearn")):
    collect_ignore_glob = ["test_*.py"]
else:
    define_missing()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: the models are so small that more would only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

"""Run by every process that the engine starts: makes a torchvision that was built for another torch importable."""

import importlib.util
from pathlib import Path

place = Path(__file__).parents[2] / "integrations" / "torchvision_schemas.py"
spec = importlib.util.spec_from_file_location("torchvision_schemas", place)
assert spec is not None
assert spec.loader is not None
schemas = importlib.util.module_from_spec(spec)
spec.loader.exec_module(schemas)
schemas.define_missing()

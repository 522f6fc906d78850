"""`iwp map` without Ray; with it, see tests/ray."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iwp_cli.app import app


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_missing_is_named_with_what_installs_it(tmp_path: Path) -> None:
    """In one line, before anything is loaded."""
    done = CliRunner().invoke(app, ["map", str(tmp_path), "--model", "none", "--output", str(tmp_path / "out")])

    assert done.exit_code == 1
    assert done.stderr == (
        "iwp map: error: data sets are mapped with Ray, which is not installed: in a clone, pip install '.[ray]'\n"
    )

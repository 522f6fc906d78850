"""Packages that import their names when asked for them list them all the same."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["iwp_transformers", "iwp_miniature"])
def test_dir_lists_the_public_names(name: str) -> None:
    """What completion offers is what the package has, and each of it can be had."""
    package = importlib.import_module(name)

    assert dir(package) == sorted(package.__all__)
    assert [listed for listed in dir(package) if not hasattr(package, listed)] == []


@pytest.mark.parametrize("name", ["iwp_transformers", "iwp_miniature", "iwp_ray"])
def test_dir_of_a_fresh_package_imports_nothing(name: str) -> None:
    """Asking for the names alone stays cheap."""
    code = f"import sys, {name}; assert dir({name}); assert not {{'torch', 'ray', 'pyarrow'}} & set(sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr

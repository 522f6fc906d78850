"""`iwp_core` loads no array library: only the caller's own is ever used, as a fresh interpreter proves."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

FOREIGN = ("numpy", "torch", "jax", "cupy", "array_api_strict", "transformers", "triton", "iwp_torch", "iwp_cupy")

BLOCKER = """
import sys

class Blocker:
    def __init__(self, names):
        self.names = names

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names:
            raise ImportError(f"{fullname} must not be imported here")
        return None

sys.meta_path.insert(0, Blocker(NAMES))
"""
SELECTION = """
from {library} import asarray, linspace, reshape
x = reshape(linspace(-1.0, 1.0, 24), (2, 4, 3))
kept = iwp_core.select_tokens(x, x + 2.0, x[:, 0, :], 2)
assert type(kept) is type(x), type(kept)
assert kept.shape == (2,)
"""


def run(*, blocked: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which some libraries cannot be imported."""
    source = f"NAMES = {set(blocked)!r}\n" + BLOCKER + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=False)


def test_importing_the_core_needs_no_array_library() -> None:
    """With every array library blocked, all public names are there."""
    result = run(blocked=FOREIGN, code="import iwp_core; [getattr(iwp_core, name) for name in iwp_core.__all__]")

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("library", ["numpy", "array_api_strict"])
def test_using_the_core_loads_no_library_but_the_arrays_own(library: str) -> None:
    """A selection among arrays of one library runs where no other can be imported."""
    pytest.importorskip(library, reason=f"{library} is not installed")
    # array_api_strict is itself built on NumPy.
    blocked = tuple(name for name in FOREIGN if name not in {library, "numpy"})

    result = run(blocked=blocked, code="import iwp_core\n" + SELECTION.format(library=library))

    assert result.returncode == 0, result.stderr


def test_the_core_leaves_loaded_nothing_that_it_could_have_imported_silently() -> None:
    """An import in a try block would pass the blocker; what is in sys.modules cannot hide."""
    code = f"""
    import sys, iwp_core
    loaded = sorted(set({FOREIGN!r}) & {{name.partition(".")[0] for name in sys.modules}})
    assert not loaded, loaded
    """

    result = run(blocked=(), code=code)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "code", ["import numpy", "from numpy import linalg", "import importlib; importlib.import_module('numpy')"]
)
def test_the_blocker_itself_can_fail_a_run(code: str) -> None:
    """Any form of import of a blocked library ends the interpreter with that reason."""
    result = run(blocked=("numpy",), code=code)

    assert result.returncode != 0
    assert "must not be imported here" in result.stderr

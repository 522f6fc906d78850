"""The console script says what is missing instead of failing on it."""

import subprocess
import sys

BLOCKED = """
import importlib.util, sys

real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {name!r} else real(name, package)


class Blocker:
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(fullname, name=fullname)


sys.meta_path.insert(0, Blocker())
sys.argv = ["iwp", "--help"]
from iwp_cli import main

main()
"""


def run_without(name: str) -> subprocess.CompletedProcess[str]:
    """Run the console script where one package cannot be found."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED.format(name=name)], capture_output=True, text=True, check=False
    )


def test_a_missing_package_is_named_with_what_installs_it() -> None:
    """A core-only installation has the command, and the command has a sentence for it."""
    done = run_without("transformers")

    assert done.returncode == 1
    assert done.stderr.startswith("iwp: the command line needs")
    assert "transformers" in done.stderr
    assert "'.[cli]'" in done.stderr

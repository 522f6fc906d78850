"""The console script says what is missing instead of failing on it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


INTERRUPTED = """
import sys


class Interrupter:
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "iwp_cli.app":
            raise KeyboardInterrupt


sys.meta_path.insert(0, Interrupter())
sys.argv = ["iwp", "methods"]
import iwp_cli

iwp_cli.NEEDED = ()
iwp_cli.main()
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


def test_an_interrupt_during_the_imports_is_no_traceback() -> None:
    """They take seconds, in which one presses Ctrl+C; the status is that of an interrupted command."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_version_that_cannot_be_written_is_one_line() -> None:
    """Neither a traceback nor what Python says when it tries again at its end."""
    code = "import sys; sys.argv = ['iwp', '--version']; from iwp_cli import main; main()"

    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stderr) == (1, f"iwp: the version cannot be written: {os.strerror(errno.ENOSPC)}\n")

"""The console script `iwp`."""

import io
import os
import sys
from importlib.util import find_spec

from iwp_cli.requirements import torchvision_trouble
from iwp_core import __version__

__all__ = ["main"]

NEEDED = ("typer", "rich", "torch", "transformers", "PIL", "matplotlib", "sklearn")


def main() -> None:
    """Run the command line, or say what to install for it.

    Ctrl+C ends it with status 130 and in silence, as the commands do, also in the seconds that the imports take.
    """
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    if sys.argv[1:] == ["--version"]:
        # Said here too, since whoever asks may have neither the rest installed nor the time that importing it takes.
        _say_version()
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An answer can have characters that the terminal has not; the default would be an error once it is there.
        sys.stdout.reconfigure(errors="backslashreplace")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"iwp: the command line needs {', '.join(missing)}: install iwp with its extra, '.[cli]' in a clone")
    try:
        from iwp_cli.app import app  # noqa: PLC0415 - imports what may be missing or broken
    except Exception as error:
        # Transformers itself fails to import beside a torchvision that was built for another torch.
        if find_spec("torchvision") is None or (trouble := torchvision_trouble()) is None:
            raise
        sys.exit(f"iwp: {trouble} ({error})")
    app()


def _say_version() -> None:
    try:
        sys.stdout.write(f"iwp {__version__}\n")
        sys.stdout.flush()
    except OSError as error:
        # What was not written would be tried again at the end of the program, and be an error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1 if isinstance(error, BrokenPipeError) else f"iwp: the version cannot be written: {error.strerror}")

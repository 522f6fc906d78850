"""The console script `iwp`."""

import io
import sys
from importlib.util import find_spec

from iwp_cli.requirements import torchvision_trouble
from iwp_core import __version__

__all__ = ["main"]

NEEDED = ("typer", "rich", "torch", "transformers", "PIL", "matplotlib", "sklearn")


def main() -> None:
    """Run the command line, or say what to install for it."""
    if sys.argv[1:] == ["--version"]:
        # Said here too, since whoever asks may have neither the rest installed nor the time that importing it takes.
        sys.stdout.write(f"iwp {__version__}\n")
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

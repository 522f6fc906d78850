"""The console script `iwp`."""

import sys
from importlib.util import find_spec

__all__ = ["main"]

NEEDED = ("typer", "rich", "torch", "transformers", "PIL", "matplotlib")


def main() -> None:
    """Run the command line, or say what to install for it."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"iwp: the command line needs {', '.join(missing)}: pip install 'iwp[cli]'")
    from iwp_transformers.cli.app import app  # noqa: PLC0415 - imports what may be missing

    app()

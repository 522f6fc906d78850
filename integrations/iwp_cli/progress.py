"""How far a command is that takes long."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["progress_bar"]


def progress_bar(console: Console) -> Progress:
    """Return a bar with what is done of how many, and the time that it took and will take; it goes when it is done.

    Parameters
    ----------
    console : rich.console.Console
        Where it is shown.
    """
    counts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*counts, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)

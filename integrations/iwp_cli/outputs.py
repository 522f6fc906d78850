"""Writing pictures: checked before the long work, and again when it is done."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iwp_cli.refusal import Refusal
from iwp_transformers.media.errors import first_line, quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURE_ENDINGS", "check_apart", "check_place", "check_writable", "drawing", "write_figure", "writing"]

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".pdf", ".svg")
LONGEST_SIDE = 2**15  # pixels; matplotlib draws twice as many and WebP half as many


def check_writable(path: Path) -> None:
    """Check that a picture can be written to a path.

    Parameters
    ----------
    path : pathlib.Path
        Its ending, in any case, says in which format.

    Raises
    ------
    Refusal
        If its folder does not exist, if it may not be written to, or if its ending is none that is drawn to.
    """
    if path.suffix.lower() not in PICTURE_ENDINGS:
        msg = f"{quoted(path)} has no known ending, expected {', '.join(PICTURE_ENDINGS)}"
        raise Refusal(msg)
    check_place(path)


def check_place(path: Path) -> None:
    """Check that a file can be written to a path, whatever its ending.

    Parameters
    ----------
    path : pathlib.Path
        Where to.

    Raises
    ------
    Refusal
        If its folder does not exist, or if it may not be written to.
    """
    try:
        if not path.parent.is_dir():
            msg = f"{quoted(path)} cannot be written: there is no folder {quoted(path.parent)}"
            raise Refusal(msg)
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise Refusal(_unwritable(path, error)) from error
    if is_folder:
        msg = f"{quoted(path)} cannot be written: it is a folder"
        raise Refusal(msg)
    if not os.access(path if exists else path.parent, os.W_OK):
        msg = f"{quoted(path)} cannot be written: {'it' if exists else 'its folder'} is write-protected"
        raise Refusal(msg)


def check_apart(outputs: Mapping[str, Path], inputs: Iterable[Path]) -> None:
    """Check that no file to write replaces one that is read, or another one to write.

    Parameters
    ----------
    outputs : mapping of str to pathlib.Path
        Files to write, by the options that name them.
    inputs : iterable of pathlib.Path
        Files that are read, and folders whose files are: what is written there would be read the next time.

    Raises
    ------
    Refusal
        If an output is an input or lies in one, or if two outputs are one file.
    """
    read = {os.path.realpath(path): path for path in inputs}
    written: dict[str, str] = {}
    for option, path in outputs.items():
        place = os.path.realpath(path)
        if place in read:
            msg = f"{option} {quoted(path)} would replace what is read: choose another place"
            raise Refusal(msg)
        if os.path.dirname(place) in read:
            folder = read[os.path.dirname(place)]
            msg = f"{option} {quoted(path)} lies in {quoted(folder)}, whose files are read: choose another place"
            raise Refusal(msg)
        if place in written:
            msg = f"{written[place]} and {option} are both {quoted(path)}: choose a place for each"
            raise Refusal(msg)
        written[place] = option


@contextmanager
def drawing(*pictures: Path) -> Iterator[None]:
    """Say in one sentence that the tokens of a picture cannot be told where they lie.

    Parameters
    ----------
    *pictures : pathlib.Path
        What is drawn.

    Raises
    ------
    Refusal
        If the block raises an IndexError or a ValueError.
    """
    try:
        yield
    except (IndexError, ValueError) as error:
        paths = ", ".join(map(quoted, pictures))
        msg = f"{paths}: the visual tokens cannot be drawn on pictures of this shape: {first_line(error)}"
        raise Refusal(msg) from error


def write_figure(figure: "Figure", path: Path, *, dpi: float) -> None:
    """Write a figure.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : pathlib.Path
    dpi : float
        Dots an inch, or fewer where a side would be longer than 2**15.

    Raises
    ------
    Refusal
        If it cannot be written after all, such as to a full disk.
    """
    longest = max(figure.get_size_inches())
    with writing(path):
        figure.savefig(path, dpi=min(dpi, LONGEST_SIDE / longest), format=path.suffix[1:].lower())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence that a file could not be written after all.

    Parameters
    ----------
    path : pathlib.Path
        What the block writes.

    Raises
    ------
    Refusal
        If the block raises an OSError or a ValueError.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise Refusal(_unwritable(path, error)) from error


def _unwritable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or first_line(error)
    return f"{quoted(path)} cannot be written: {reason}"

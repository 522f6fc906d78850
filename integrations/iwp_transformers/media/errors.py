"""How reading says no: one sentence that names the file, what is the matter with it, and what is allowed."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MediaError", "first_line", "quoted", "reading"]


class MediaError(ValueError):
    """A file, or a prompt about it, that cannot be read or encoded; the message is one sentence about it."""


def quoted(path: Path | str) -> str:
    r"""Return a path between quotes, line breaks and bytes that are no text escaped.

    Examples
    --------
    >>> print(quoted(Path("two\nlines.png")))
    'two\nlines.png'
    """
    return repr(str(path))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, its name if there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises within the block into one sentence about the file.

    Parameters
    ----------
    path : pathlib.Path
        The file that is read.

    Raises
    ------
    MediaError
        If the block raises anything: decoders of damaged files raise errors of any kind.
    """
    logger = logging.getLogger("PIL")
    before = logger.level
    try:
        with warnings.catch_warnings():
            # What a decoder warns of, such as damaged metadata, does not keep the pixels from being read; what it logs
            # beside raising an error would be a second line.
            warnings.simplefilter("ignore")
            logger.setLevel(logging.CRITICAL)
            yield
    except MediaError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        msg = f"{quoted(path)} cannot be read: {reason}"
        raise MediaError(msg) from error
    finally:
        logger.setLevel(before)

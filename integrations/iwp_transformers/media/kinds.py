"""Which files are images, videos, or lists of them, by their names alone."""

from pathlib import Path

from PIL import Image

from iwp_transformers.media.errors import quoted

__all__ = ["IMAGE_NAMES", "VIDEO_NAMES", "is_image_file", "kind_of_file", "list_in"]

# What a list of samples may call its pictures; the ImageFolder of Hugging Face's datasets calls one `file_name`.
IMAGE_NAMES, VIDEO_NAMES = ("image", "images", "file_name"), ("video", "videos")
VIDEO_ENDINGS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".npy", ".webm")


def is_image_file(path: Path) -> bool:
    """Return whether Pillow reads files of such a name, animations too; hidden files are none."""
    Image.init()
    return not path.name.startswith(".") and Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN


def kind_of_file(path: Path) -> str | None:
    """Return "image" or "video", or None for a file that is neither, or hidden; it is not opened.

    Examples
    --------
    >>> [kind_of_file(Path(name)) for name in ("a.PNG", "b.mp4", "c.gif", "d.txt", ".e.png")]
    ['image', 'video', 'video', None, None]
    """
    if path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith("."):
        return "video"
    return "image" if is_image_file(path) else None


def list_in(folder: Path, of: str) -> Path | None:
    """Return the JSON Lines file that a folder is read by, None where it has none.

    Parameters
    ----------
    folder : pathlib.Path
    of : str
        What such a file lists, for the message.

    Raises
    ------
    ValueError
        If there are several.
    """
    lists = sorted(folder.glob("*.jsonl"))
    if len(lists) > 1:
        names = ", ".join(quoted(each.name) for each in lists)
        msg = f"{quoted(folder)} holds several lists of {of}, {names}: name one of them"
        raise ValueError(msg)
    return lists[0] if lists else None

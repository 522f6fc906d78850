"""Which files are images and which are videos, by their names alone."""

from pathlib import Path

from PIL import Image

__all__ = ["IMAGE_NAMES", "VIDEO_NAMES", "is_image_file", "kind_of_file"]

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

"""One row of a data set: its question and its pictures, read from wherever they are."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from iwp_transformers.media.encoding import Media
from iwp_transformers.media.errors import MediaError, first_line
from iwp_transformers.media.images import as_seen, read_image, read_image_bytes
from iwp_transformers.media.videos import Video, read_video, video_of_frames

__all__ = ["BROKEN", "COLUMNS", "Row", "read_row", "told"]

COLUMNS = ("id", "image", "video", "prompt")
BROKEN = "_broken"
"""Column in which a source says why a row could not be read there."""

# What follows height and width: nothing in a picture of grey levels, its colours, or its colours and how opaque it is.
PICTURE_SHAPES = ((), (3,), (4,))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row that was read, or why it could not be.

    Attributes
    ----------
    prompt : str
    media : Media or None
        None if it could not be read.
    error : str or None
    read_seconds : float
    """

    prompt: str
    media: Media | None
    error: str | None
    read_seconds: float


def read_row(content: Mapping[str, Any], *, prompt: str | None, root: Path, frames: int) -> Row:
    """Read the pictures and the prompt of a row.

    Parameters
    ----------
    content : mapping
        `id`; `image` or `video`, in the forms that `prune_dataset` lists; and perhaps `prompt`.
    prompt : str or None
        Question of rows without a prompt.
    root : pathlib.Path
        Folder that relative paths start from.
    frames : int
        Number of frames taken from each video, evenly spaced.

    Returns
    -------
    Row
        With an error in place of the pictures if something cannot be read.
    """
    began = perf_counter()
    asked, media, error = content.get("prompt"), None, content.get(BROKEN)
    asked = prompt if asked is None else asked
    try:
        if error is None:
            media = _media(content, asked, root, frames)
    except Exception as reason:
        # Whatever a decoder raises concerns this row alone.
        error = told(reason)
    return Row(
        prompt=asked if isinstance(asked, str) else "",
        media=media,
        error=error,
        read_seconds=perf_counter() - began,
    )


def told(error: Exception) -> str:
    """Return the text for the column `error`."""
    return str(error) if isinstance(error, MediaError) else f"{type(error).__name__}: {first_line(error)}"


def _media(content: Mapping[str, Any], prompt: object, root: Path, frames: int) -> Media:
    if content["id"] is None:
        msg = "the row's `id` is null, expected an integer or text"
        raise MediaError(msg)
    if not isinstance(prompt, str):
        msg = "the row has no `prompt`, and none was given for all rows" if prompt is None else "`prompt` is no text"
        raise MediaError(msg)
    images, videos = (_several(content.get(kind)) for kind in ("image", "video"))
    if bool(images) == bool(videos):
        held = "both `image` and `video`" if images else "neither `image` nor `video`"
        msg = f"the row holds {held}, expected one of them"
        raise MediaError(msg)
    return Media(
        images=[_image(value, root, content["id"]) for value in images],
        videos=[_video(value, root, content["id"], frames) for value in videos],
    )


def _several(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _image(value: Any, root: Path, identity: object) -> tuple[Path, Image.Image]:
    name = Path(f"image of row {identity}")
    value = _unwrapped(value)
    if isinstance(value, str):
        path = root / value
        return path, read_image(path)
    if isinstance(value, bytes):
        return name, read_image_bytes(value, name)
    if isinstance(value, np.ndarray) and _is_picture(value):
        return name, as_seen(Image.fromarray(value))
    raise MediaError(_unreadable("image", value))


def _is_picture(value: np.ndarray[Any, Any]) -> bool:
    return value.dtype == np.uint8 and value.size > 0 and value.ndim > 1 and value.shape[2:] in PICTURE_SHAPES


def _video(value: Any, root: Path, identity: object, frames: int) -> tuple[Path, Video]:
    name = Path(f"video of row {identity}")
    value = _unwrapped(value)
    if isinstance(value, str):
        path = root / value
        return path, read_video(path, frames)
    if isinstance(value, bytes):
        with tempfile.NamedTemporaryFile(prefix="video of a row ") as file:
            file.write(value)
            file.flush()
            return name, read_video(Path(file.name), frames)
    if isinstance(value, np.ndarray):
        return name, video_of_frames(value, frames, name)
    raise MediaError(_unreadable("video", value))


def _unwrapped(value: Any) -> Any:
    # Data sets of the Hub hold {"bytes": ..., "path": ...}, one of which may be missing.
    if isinstance(value, Mapping):
        return value.get("path") if value.get("bytes") is None else value["bytes"]
    return value


def _unreadable(kind: str, value: object) -> str:
    told = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    return f"`{kind}` is {told}, expected a path, the bytes of a file, or an array of bytes"

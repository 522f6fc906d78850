"""Reading frames that are evenly spread over a video."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from iwp_transformers.media.errors import MediaError, quoted, reading
from iwp_transformers.media.images import as_seen, check_file, opened, read_image
from iwp_transformers.media.kinds import is_image_file

__all__ = ["Video", "read_video", "spread", "video_of_frames"]

# A video as numbers: frames, height, width, and red, green and blue.
FRAME_AXES, CHANNELS = 4, 3
# Formats of Pillow that hold animations, pages, or one still frame; video files go to PyAV.
ANIMATIONS = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "JPEG")
EXPECTED = "a video file, an animation, a folder of frames or a .npy array"


@dataclass(frozen=True, kw_only=True)
class Video:
    """Frames taken evenly from a video.

    Attributes
    ----------
    frames : numpy.ndarray of uint8, shape (frames, height, width, 3)
    total : int
        Frames of the source.
    indices : list of int
        Which of them were taken.
    rate : float or None
        Frames a second of the source, if it says so.
    """

    frames: NDArray[np.uint8]
    total: int
    indices: list[int]
    rate: float | None = None


def read_video(path: Path, count: int) -> Video:
    """Read frames that are evenly spread over a video.

    Parameters
    ----------
    path : pathlib.Path
        A video file (needs PyAV), an animation or a file of several pages that Pillow knows, a folder of frames in the
        natural order of their names (2 before 10), or a `.npy` array of bytes of shape (frames, height, width, 3).
    count : int
        Frames to take; a shorter video gives all it has.

    Returns
    -------
    Video
        Each frame as `as_seen` makes it.

    Raises
    ------
    MediaError
        If it cannot be read; the message says what can.
    """
    with reading(path):
        if path.is_dir():
            return _from_folder(path, count)
        if not path.exists():
            msg = f"{quoted(path)} does not exist, expected {EXPECTED}"
            raise MediaError(msg)
        check_file(path, expected=EXPECTED)
        if path.suffix.lower() == ".npy":
            return _from_array(path, count)
        return _from_animation(path, count) if _is_animation(path) else _from_file(path, count)


def _from_folder(path: Path, count: int) -> Video:
    names = sorted((file for file in path.iterdir() if is_image_file(file) and file.is_file()), key=_natural)
    if not names:
        msg = f"{quoted(path)} holds no image files, expected one for each frame"
        raise MediaError(msg)
    indices = spread(len(names), count)
    frames = [np.asarray(read_image(names[index])) for index in indices]
    return Video(frames=_stacked(path, frames), total=len(names), indices=indices)


def _natural(file: Path) -> tuple[list[str | int], str]:
    """Return what to sort a file by: numbers by their value, words in any case, and the name where those are equal."""
    # The pattern's parentheses keep the numbers: words stand at even places and numbers at odd ones.
    parts = re.split(r"([0-9]+)", file.stem.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], file.name


def _from_array(path: Path, count: int) -> Video:
    # Mapped, so that of a long video the frames taken are all that is read.
    return video_of_frames(np.load(path, mmap_mode="r", allow_pickle=False), count, path)


def video_of_frames(frames: NDArray[np.uint8], count: int, name: Path) -> Video:
    """Take frames that are evenly spread over an array of all of them.

    Parameters
    ----------
    frames : numpy.ndarray of uint8, shape (frames, height, width, 3)
    count : int
        Frames to take; a shorter video gives all it has.
    name : pathlib.Path
        What messages call it.

    Returns
    -------
    Video

    Raises
    ------
    MediaError
        If the array is of another kind or shape.
    """
    if frames.ndim != FRAME_AXES or frames.shape[-1] != CHANNELS or frames.dtype != np.uint8 or frames.size == 0:
        msg = (
            f"{quoted(name)} holds {frames.dtype} {frames.shape}, "
            "expected uint8 of shape (frames, height, width, 3) with at least one pixel"
        )
        raise MediaError(msg)
    indices = spread(len(frames), count)
    return Video(frames=np.array(frames[indices]), total=len(frames), indices=indices)


def _is_animation(path: Path) -> bool:
    Image.init()
    formats = [name for name in ANIMATIONS if name in Image.OPEN]
    try:
        with Image.open(path, formats=formats):
            return True
    except UnidentifiedImageError:
        return False
    except Image.DecompressionBombError:
        return True


def _from_animation(path: Path, count: int) -> Video:
    with opened(path) as image:
        total = getattr(image, "n_frames", 1)
        indices = spread(total, count)
        frames = [np.asarray(frame) for frame in _seen(image, indices)]
        milliseconds = image.info.get("duration")  # WebP tells once a frame is decoded
    rate = 1000 / milliseconds if milliseconds else None
    return Video(frames=_stacked(path, frames), total=total, indices=indices, rate=rate)


def _seen(image: Image.Image, indices: Sequence[int]) -> Iterator[Image.Image]:
    for index in indices:
        image.seek(index)
        yield as_seen(image)


def _from_file(path: Path, count: int) -> Video:
    try:
        av = import_module("av")
    except ImportError as error:
        msg = (
            f"{quoted(path)}: video files need PyAV (pip install av); "
            "an animation, a folder of frames or a .npy array needs nothing more"
        )
        raise MediaError(msg) from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                msg = f"{quoted(path)} holds no video, expected {EXPECTED}"
                raise MediaError(msg)
            stream = container.streams.video[0]
            rate = stream.average_rate
            # Containers that do not state their length have to be decoded twice.
            total = stream.frames or sum(1 for _ in container.decode(stream))
        indices = spread(total, count)
        with av.open(str(path)) as container:
            wanted = enumerate(container.decode(container.streams.video[0]))
            # Phones film as they are held and note how to turn it, counter-clockwise as NumPy does.
            frames = [
                np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                for index, frame in wanted
                if index in indices
            ]
    except av.FFmpegError as error:
        msg = f"{quoted(path)} is not a video that PyAV can read: {error.strerror}"
        raise MediaError(msg) from error
    if len(frames) < len(indices):
        msg = f"{quoted(path)} announces {total} frames, but holds fewer: it seems to be cut off"
        raise MediaError(msg)
    return Video(frames=_stacked(path, frames), total=total, indices=indices, rate=float(rate) if rate else None)


def _stacked(path: Path, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if not frames:
        msg = f"{quoted(path)} holds no frames, expected at least one"
        raise MediaError(msg)
    sizes = sorted({frame.shape[1::-1] for frame in frames})
    if len(sizes) > 1:
        listed = " and ".join(f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
        msg = f"{quoted(path)} holds frames of different sizes, such as {listed} pixels, expected one size"
        raise MediaError(msg)
    return np.stack(frames)


def spread(total: int, count: int) -> list[int]:
    """Return `count` indices, or fewer if there are no more, evenly spread from the first to the last.

    Parameters
    ----------
    total : int
        Frames that there are, >= 1.
    count : int
        Frames to take, >= 1.

    Examples
    --------
    >>> spread(10, 4), spread(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    positions: Sequence[float] = np.linspace(0, total - 1, min(count, total)).tolist()
    return [round(position) for position in positions]

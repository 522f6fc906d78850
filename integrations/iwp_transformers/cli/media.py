"""Reading the pictures that the command line names."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# A video as numbers: frames, height, width, and red, green and blue.
FRAME_AXES, CHANNELS = 4, 3
PICTURE_ENDINGS = (".png", ".jpg", ".pdf", ".svg")


class MediaError(ValueError):
    """A picture that cannot be read; the message says which, why, and what can."""


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


def check_writable(path: Path) -> None:
    """Check, before the long work and not after it, that a picture can be written to a path.

    Parameters
    ----------
    path : pathlib.Path

    Raises
    ------
    MediaError
        If its folder does not exist or its ending is none that matplotlib draws to.
    """
    if not path.parent.is_dir():
        msg = f"there is no folder '{path.parent}'"
        raise MediaError(msg)
    if path.suffix not in PICTURE_ENDINGS:
        msg = f"'{path.name}' has no known ending, expected {', '.join(PICTURE_ENDINGS)}"
        raise MediaError(msg)


def read_image(path: Path) -> Image.Image:
    """Read an image file.

    Parameters
    ----------
    path : pathlib.Path
        A file of any kind that Pillow knows.

    Returns
    -------
    PIL.Image.Image
        In RGB.

    Raises
    ------
    MediaError
        If the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        msg = f"'{path}' is not an image that Pillow can read"
        raise MediaError(msg) from error
    except OSError as error:
        msg = f"'{path}' cannot be read: {error.strerror or error}"
        raise MediaError(msg) from error


def read_video(path: Path, count: int) -> Video:
    """Read frames that are evenly spread over a video.

    Parameters
    ----------
    path : pathlib.Path
        A video file (needs PyAV), a folder of frames in the order of their names, or a `.npy` array of bytes of shape
        (frames, height, width, 3).
    count : int
        Frames to take; a shorter video gives all it has.

    Returns
    -------
    Video

    Raises
    ------
    MediaError
        If it cannot be read; the message says what can.
    """
    if path.is_dir():
        return _from_folder(path, count)
    if not path.exists():
        msg = f"'{path}' does not exist: expected a video file, a folder of frames or a .npy array"
        raise MediaError(msg)
    return _from_array(path, count) if path.suffix == ".npy" else _from_file(path, count)


def _from_folder(path: Path, count: int) -> Video:
    known = Image.registered_extensions()
    names = sorted(file for file in path.iterdir() if file.suffix.lower() in known)
    if not names:
        msg = f"'{path}' holds no image files: expected one for each frame"
        raise MediaError(msg)
    indices = _spread(len(names), count)
    frames = [np.asarray(read_image(names[index])) for index in indices]
    if len({frame.shape for frame in frames}) > 1:
        msg = f"'{path}' holds frames of different sizes: expected one size"
        raise MediaError(msg)
    return Video(frames=np.stack(frames), total=len(names), indices=indices)


def _from_array(path: Path, count: int) -> Video:
    try:
        frames = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        msg = f"'{path}' cannot be read as an array: {error}"
        raise MediaError(msg) from error
    if frames.ndim != FRAME_AXES or frames.shape[-1] != CHANNELS or frames.dtype != np.uint8 or frames.size == 0:
        msg = f"'{path}' holds {frames.dtype} {frames.shape}, expected uint8 of shape (frames, height, width, 3)"
        raise MediaError(msg)
    indices = _spread(len(frames), count)
    return Video(frames=frames[indices], total=len(frames), indices=indices)


def _from_file(path: Path, count: int) -> Video:
    try:
        av = import_module("av")
    except ImportError as error:
        msg = f"'{path}': video files need PyAV (pip install av); a folder of frames or a .npy array needs nothing more"
        raise MediaError(msg) from error
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            # Containers that do not state their length have to be decoded twice.
            total = stream.frames or sum(1 for _ in container.decode(stream))
        indices = _spread(total, count)
        with av.open(str(path)) as container:
            wanted = enumerate(container.decode(container.streams.video[0]))
            frames = [frame.to_ndarray(format="rgb24") for index, frame in wanted if index in indices]
    except (av.FFmpegError, IndexError) as error:
        msg = f"'{path}' is not a video that PyAV can read: {error}"
        raise MediaError(msg) from error
    if len(frames) < len(indices):
        msg = f"'{path}' announces {total} frames, but holds fewer: it seems to be cut off"
        raise MediaError(msg)
    return Video(frames=np.stack(frames), total=total, indices=indices, rate=float(rate) if rate else None)


def _spread(total: int, count: int) -> list[int]:
    """Return `count` indices, or fewer if there are no more, evenly spread from the first to the last."""
    positions: Sequence[float] = np.linspace(0, total - 1, min(count, total)).tolist()
    return [round(position) for position in positions]

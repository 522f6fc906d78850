"""Images and videos that a model is asked about."""

from collections.abc import Sequence
from pathlib import Path

from iwp_cli.refusal import Refusal
from iwp_transformers.media.encoding import Media
from iwp_transformers.media.images import read_image
from iwp_transformers.media.videos import read_video

__all__ = ["check_given", "files_read", "read_media"]


def read_media(images: Sequence[Path], videos: Sequence[Path], frames: int) -> Media:
    """Read images, and frames that are evenly spread over videos.

    Parameters
    ----------
    images, videos : sequence of pathlib.Path
        As `read_image` and `read_video` take them.
    frames : int
        Frames taken from each video.

    Raises
    ------
    MediaError
        If one cannot be read.
    """
    return Media(
        images=[(path, read_image(path)) for path in images],
        videos=[(path, read_video(path, frames)) for path in videos],
    )


def files_read(images: Sequence[Path] | None, videos: Sequence[Path] | None, settings: Path | None) -> list[Path]:
    """Return everything on disk that options name and that is read.

    Parameters
    ----------
    images, videos : sequence of pathlib.Path or None
    settings : pathlib.Path or None
    """
    return [*(images or ()), *(videos or ()), *([] if settings is None else [settings])]


def check_given(images: Sequence[Path], videos: Sequence[Path]) -> None:
    """Raise unless there is something to look at.

    Raises
    ------
    Refusal
        If there is none of either.
    """
    if not images and not videos:
        msg = "there is nothing to look at: give one or more of --image and --video"
        raise Refusal(msg)

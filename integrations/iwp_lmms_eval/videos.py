"""Frames of a video that a task names."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata, load_video

from iwp_transformers.media.videos import spread

__all__ = ["read_frames"]


def read_frames(source: Any, count: int) -> tuple[Any, VideoMetadata]:
    """Return frames that are evenly spread from the first to the last, and where they come from.

    Parameters
    ----------
    source : str, mapping, or sequence of frames
        A path or an address; a mapping with one of them as `url` or `path`; or frames, of which all are taken.
    count : int
        Frames to take; a shorter video gives all it has.

    Returns
    -------
    frames : numpy.ndarray of uint8, shape (frames, height, width, 3), or the given frames
    metadata : VideoMetadata
        Which frames of how many they are; a rate is known of files only.

    Raises
    ------
    NotImplementedError
        If a mapping names a part of a video, by its beginning or end.
    """
    if isinstance(source, Mapping):
        window = [name for name in ("video_start", "video_end") if source.get(name) is not None]
        if window:
            msg = f"a video comes with {' and '.join(window)}: only whole videos are read"
            raise NotImplementedError(msg)
        source = source.get("url") or source["path"]
    if not isinstance(source, str):
        return source, VideoMetadata(total_num_frames=len(source), frames_indices=list(range(len(source))))

    load: Any = load_video  # its annotations leave paths out
    frames, metadata = load(
        source, sample_indices_fn=lambda metadata, **_: np.array(spread(metadata.total_num_frames, count))
    )
    return frames, metadata

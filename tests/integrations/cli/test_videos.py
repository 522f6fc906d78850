"""Reading the videos that the command line names, in every form, and refusing what is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iwp_cli.refusal import Refusal
from iwp_cli.videos import read_video
from tests.integrations.processors import coordinate_picture


def test_video_frames_are_spread_from_first_to_last(tmp_path: Path) -> None:
    """The frames taken begin with the first, end with the last and are evenly apart."""
    np.save(tmp_path / "video.npy", np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((9, 2, 2, 3), np.uint8))

    video = read_video(tmp_path / "video.npy", 3)

    assert video.indices == [0, 4, 8]
    np.testing.assert_array_equal(video.frames[:, 0, 0, 0], [0, 4, 8])


def test_short_video_gives_all_its_frames(tmp_path: Path) -> None:
    """Asking for more frames than there are is no error."""
    for number in range(3):
        coordinate_picture(8, 8, number / 3).save(tmp_path / f"{number}.png")

    assert read_video(tmp_path, 16).frames.shape == (3, 8, 8, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4, 3)), r"holds float64 \(2, 4, 4, 3\), expected uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"expected uint8 of shape \(frames, height, width, 3\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"holds uint8 \(0, 4, 4, 3\)"),
        (np.array([{}]), r"cannot be read: .*Python objects"),
    ],
    ids=["fractions", "one frame", "no frame", "objects"],
)
def test_array_that_is_no_video_is_refused(array: NDArray[Any], message: str, tmp_path: Path) -> None:
    """What the array is and what it should be are both told."""
    np.save(tmp_path / "video.npy", array)

    with pytest.raises(Refusal, match=message):
        read_video(tmp_path / "video.npy", 4)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    """An empty folder is no video."""
    with pytest.raises(Refusal, match="holds no image files"):
        read_video(tmp_path, 4)


def test_folder_of_different_sizes_is_refused(tmp_path: Path) -> None:
    """Frames of one video have one size."""
    for size in (8, 9):
        coordinate_picture(size, 8).save(tmp_path / f"{size}.png")

    with pytest.raises(Refusal, match="frames of different sizes"):
        read_video(tmp_path, 4)


def test_video_file_without_pyav_says_what_else_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV is named, and the two forms that need nothing."""
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "video.mp4").write_bytes(bytes(64))

    with pytest.raises(Refusal, match=r"need PyAV .*a folder of frames or a \.npy array needs nothing"):
        read_video(tmp_path / "video.mp4", 4)


def test_video_file_gives_its_frames_and_rate(tmp_path: Path) -> None:
    """A file written with PyAV is read back: which frames, how many there are, how fast they follow."""
    av = pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height = 64, 48
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 12 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    video = read_video(tmp_path / "video.mp4", 4)

    assert (video.total, video.indices, video.rate) == (20, [0, 6, 13, 19], 8.0)
    np.testing.assert_allclose(video.frames.mean(axis=(1, 2, 3)), [0, 72, 156, 228], atol=6)


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    """PyAV's reason is passed on."""
    pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    (tmp_path / "video.mp4").write_text("no video")

    with pytest.raises(Refusal, match="is not a video that PyAV can read"):
        read_video(tmp_path / "video.mp4", 4)
